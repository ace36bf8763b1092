"""A VGA's registers, as far as text mode 3 needs them: what is written, and where the beam is.

Offsets are ports from 0x3c0. The text itself is RAM at 0xb8000, which a guest writes without an
exit; graphics modes, planes, fonts and the palette's colours are kept but shown to nobody. IBM PS/2
Hardware Interface Technical Reference, "Video Subsystem".
"""

from dataclasses import dataclass

from vmm.devices.device import Clock, State, Untimed
from vmm.devices.saved import restore_fields, save_fields
from vmm.devices.ticks import Oscillator

PORTS = 0x20
ATTRIBUTE, ATTRIBUTE_READ, MISC_WRITE, SEQUENCER = 0x00, 0x01, 0x02, 0x04
DAC_MASK, DAC_READ_INDEX, DAC_WRITE_INDEX, DAC_DATA = 0x06, 0x07, 0x08, 0x09
MISC_READ, GRAPHICS, CRTC, STATUS = 0x0C, 0x0E, 0x14, 0x1A
_FLIP_RESET = (STATUS, 0x0A)
COLUMNS, ROWS = 80, 25
CELL_BYTES = 2

LINE_HZ, LINES, SHOWN_LINES = 31_469, 449, 400
RETRACE_LINES = range(412, 414)
LINE_PARTS = 5
"""Four fifths of a line are shown: 640 of 800 pixel times."""
DISPLAY_OFF, RETRACE = 0x01, 0x08
"""Input status 1: not showing anything just now; in vertical retrace."""

CURSOR_START, CURSOR_END, START_HIGH, START_LOW, CURSOR_HIGH, CURSOR_LOW = 10, 11, 12, 13, 14, 15
CURSOR_HIDDEN = 0x20
PROTECTED = 0x80
"""CRTC register 17, bit 7: registers 0 to 7 cannot be written."""

# What a BIOS leaves in mode 3: 80 by 25 characters of 9 by 16 pixels, in colour, at 0xb8000.
_SEQUENCER_MODE_3 = bytes((0x03, 0x00, 0x03, 0x00, 0x02))
_CRTC_MODE_3 = bytes.fromhex("5f4f50825581bf1f004f0d0e000000009c8e8f281f96b9a3ff")
_GRAPHICS_MODE_3 = bytes((0, 0, 0, 0, 0, 0x10, 0x0E, 0x00, 0xFF))
_ATTRIBUTES_MODE_3 = bytes((*range(6), 0x14, 7, *range(0x38, 0x40), 0x0C, 0, 0x0F, 8, 0))
_MISC_MODE_3 = 0x67


@dataclass(frozen=True, slots=True)
class TextScreen:
    """Where the text starts, in cells from 0xb8000, and where the cursor stands, None if hidden."""

    start: int
    cursor: int | None


_SAVED = (
    "_sequencer", "_crtc", "_graphics", "_attributes", "_palette", "_index", "_misc", "_dac",
    "_flip",
)  # fmt: skip


class Vga(Untimed):
    """Index and data registers in pairs, and the status that says where the beam is."""

    def __init__(self, clock: Clock, name: str = "vga") -> None:
        """In mode 3, as a BIOS leaves it."""
        self.name = name
        self._beam = Oscillator(clock, LINE_HZ * LINE_PARTS)
        self._sequencer = bytearray(_SEQUENCER_MODE_3)
        self._crtc = bytearray(_CRTC_MODE_3)
        self._graphics = bytearray(_GRAPHICS_MODE_3)
        self._attributes = bytearray(_ATTRIBUTES_MODE_3)
        self._palette = bytearray(3 * 256)
        self._index = bytearray(4)  # of sequencer, graphics, CRTC, attributes
        self._misc = _MISC_MODE_3
        self._dac = 0  # place in the palette
        self._flip = False  # the attribute port takes data next

    def text(self) -> TextScreen:
        """Return what the CRTC shows of text memory."""
        crtc = self._crtc
        cursor: int | None = crtc[CURSOR_HIGH] << 8 | crtc[CURSOR_LOW]
        hidden = crtc[CURSOR_START] & CURSOR_HIDDEN
        if hidden or crtc[CURSOR_START] & 0x1F > crtc[CURSOR_END] & 0x1F:
            cursor = None
        return TextScreen(crtc[START_HIGH] << 8 | crtc[START_LOW], cursor)

    def read(self, offset: int, _size: int) -> int:
        """Return a register; index ports return the index, absent ports all ones."""
        if offset in _FLIP_RESET:
            self._flip = False
            return self._status() if offset == STATUS else 0
        if offset in (MISC_READ, DAC_MASK):
            return self._misc if offset == MISC_READ else 0xFF
        if offset in (DAC_READ_INDEX, DAC_WRITE_INDEX):
            return 3 if offset == DAC_READ_INDEX else self._dac // 3 & 0xFF
        if offset == DAC_DATA:
            return self._palette[self._step_dac()]
        return self._read_pair(offset)

    def write(self, offset: int, _size: int, value: int) -> None:
        """Write a register, or choose one."""
        value &= 0xFF
        if offset == ATTRIBUTE:
            self._write_attribute(value)
        elif offset == MISC_WRITE:
            self._misc = value
        elif offset in (DAC_READ_INDEX, DAC_WRITE_INDEX):
            self._dac = value * 3
        elif offset == DAC_DATA:
            self._palette[self._step_dac()] = value & 0x3F
        else:
            self._write_pair(offset, value)

    def save(self) -> State:
        """All registers."""
        return save_fields(self, _SAVED)

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        restore_fields(self, _SAVED, state)

    def _pair(self, offset: int) -> tuple[int, bytearray] | None:
        """The place of the index and the registers of the pair at an even offset."""
        pairs = {SEQUENCER: self._sequencer, GRAPHICS: self._graphics, CRTC: self._crtc}
        registers = pairs.get(offset & ~1)
        return None if registers is None else ([*pairs].index(offset & ~1), registers)

    def _read_pair(self, offset: int) -> int:
        if offset in (ATTRIBUTE, ATTRIBUTE_READ):
            place, registers = 3, self._attributes
        elif pair := self._pair(offset):
            place, registers = pair
        else:
            return 0xFF
        index = self._index[place]
        if offset & 1 == 0:
            return index
        index &= 0x1F
        return registers[index] if index < len(registers) else 0

    def _write_pair(self, offset: int, value: int) -> None:
        pair = self._pair(offset)
        if pair is None:
            return
        place, registers = pair
        if offset & 1 == 0:
            self._index[place] = value
            return
        index = self._index[place]
        locked = registers is self._crtc and self._crtc[17] & PROTECTED and index < 8
        if index < len(registers) and not locked:
            registers[index] = value

    def _write_attribute(self, value: int) -> None:
        """One port for index and data, in turns."""
        index = self._index[3] & 0x1F
        if not self._flip:
            self._index[3] = value & 0x3F
        elif index < len(self._attributes):
            self._attributes[index] = value
        self._flip = not self._flip

    def _step_dac(self) -> int:
        at = self._dac
        self._dac = (at + 1) % len(self._palette)
        return at

    def _status(self) -> int:
        """The beam's place follows from the time: 70 frames a second, 449 lines each."""
        line, part = divmod(self._beam.now() % (LINES * LINE_PARTS), LINE_PARTS)
        retrace = RETRACE if line in RETRACE_LINES else 0
        return retrace | (DISPLAY_OFF if line >= SHOWN_LINES or part == LINE_PARTS - 1 else 0)
