"""What a monitor on the VGA would show: 25 lines of 80 characters from text memory."""

from dataclasses import dataclass
from typing import Final

from vmm.boardmap import TEXT_MEMORY
from vmm.devices.vga import CELL_BYTES, COLUMNS, ROWS
from vmm.vm import VM

_LOW_GLYPHS: Final = " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"  # the codec leaves controls alone
_GLYPHS: Final = _LOW_GLYPHS + bytes(range(32, 256)).decode("cp437").replace("\x7f", "⌂")


@dataclass(frozen=True, slots=True)
class Screen:
    """`cells` are (character, attribute) by rows; `cursor` is (row, column), None if hidden."""

    cells: tuple[tuple[tuple[str, int], ...], ...]
    cursor: tuple[int, int] | None

    def text(self) -> str:
        """Return the lines without trailing blanks, and without blank lines at the end."""
        lines = ("".join(character for character, _ in row).rstrip() for row in self.cells)
        return "\n".join(lines).rstrip("\n")


def capture(vm: VM) -> Screen:
    """Read text memory from where the CRTC starts; it wraps at the end of its 32 KiB."""
    shown = vm.board.vga.text()
    size = TEXT_MEMORY[1] - TEXT_MEMORY[0]
    memory = vm.memory.read(TEXT_MEMORY[0], size)
    first = shown.start * CELL_BYTES % size
    data = (memory + memory)[first : first + ROWS * COLUMNS * CELL_BYTES]
    cells = tuple(
        tuple(
            (_GLYPHS[data[at]], data[at + 1])
            for at in range(
                row * COLUMNS * CELL_BYTES, (row + 1) * COLUMNS * CELL_BYTES, CELL_BYTES
            )
        )
        for row in range(ROWS)
    )
    place = None if shown.cursor is None else shown.cursor - shown.start
    on_screen = place is not None and 0 <= place < ROWS * COLUMNS
    return Screen(cells, divmod(place, COLUMNS) if on_screen and place is not None else None)
