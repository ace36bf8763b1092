"""The screen as text, of guests that write to 0xb8000 and read the keyboard."""

from tests.images import EXIT, OFF, real16
from vmm import VM
from vmm.cli.screen import paint
from vmm.observe.screen import capture

PRINT = """
    mov ax, 0xb800; mov es, ax; mov di, 164; mov ax, 0x1f48; stosw; mov ax, 0x4e69; stosw;
    mov al, 0xb0; stosb; mov al, 0x07; stosb;
    mov dx, 0x3d4; mov ax, 0x000e; out dx, ax; mov ax, 0x540f; out dx, ax;
"""
READ_KEY = """
    again: in al, 0x64; test al, 1; jz again; in al, 0x60; movzx eax, al;
"""


def test_text_cursor_and_colours() -> None:
    with VM(real16(PRINT + OFF), memory="1M") as vm:
        assert vm.run().reason == "halted"
        screen = capture(vm)
    assert screen.text() == "\n  Hi░"
    assert screen.cells[1][2:5] == (("H", 0x1F), ("i", 0x4E), ("░", 0x07))
    assert screen.cursor == (1, 4)
    drawn = paint(screen)
    assert "\x1b[0;97;44mH" in drawn
    assert "\x1b[0;93;41mi" in drawn
    assert drawn.endswith("\x1b[2;5H\x1b[?25h")


def test_scrolling_by_the_start_address() -> None:
    scroll = "mov dx, 0x3d4; mov ax, 0x500d; out dx, ax;"
    with VM(real16(PRINT + scroll + OFF), memory="1M") as vm:
        vm.run()
        assert capture(vm).text() == "  Hi░"


def test_what_is_typed_reaches_the_keyboard_with_screen() -> None:
    keys = [b"g"]
    with VM(
        real16(READ_KEY + EXIT), memory="1M", screen=True,
        poll_input=lambda: keys.pop() if keys else b"",
    ) as vm:  # fmt: skip
        result = vm.run()
    assert result.status == 0x22 << 1 | 1, "set 1 code of g"
