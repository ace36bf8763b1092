"""What the engine does about a serial port itself: as if software had done it."""

import pytest

from tests.images import OFF, elf64
from vmm import VM

LOOPBACK = 0x10
POLLS = 300
GUEST = f"""
    mov r15d, 0xffffffff
    mov ecx, {POLLS}
again:
    mov dx, 0x3fd
    mov eax, 0x11223300
    in al, dx
    mov r8, rax
    mov dx, 0x3f8
    mov al, 0x2e
    out dx, al
    dec ecx
    jnz again
    mov dx, 0x3fc
    mov al, {LOOPBACK}
    out dx, al
    mov dx, 0x3f8
    mov al, 0x41
    out dx, al
    mov dx, 0x3fd
    in al, dx
    mov r9, rax
    mov dx, 0x3f8
    in al, dx
    mov r10, rax
    mov dx, 0x3fd
    in al, dx
    mov r11, rax
    {OFF}
"""


def outcome(vm: VM, *, watched: bool) -> tuple[object, ...]:
    """Run to the end, each exit seen or none."""
    if watched:
        for _ in vm:
            pass
    result = vm.run()
    exits = {name: result.exits[name] for name in ("IO_INSTRUCTION", "HLT")}
    return result.instructions, result.cycles, result.digest(), exits, vm.regs.as_dict()


@pytest.mark.parametrize("timing", ["fast", "cycle"])
def test_an_answered_poll_is_an_exit_like_any_other(timing: str) -> None:
    said: list[bytes] = []
    with VM(elf64(GUEST), memory="4M", timing=timing, serial_output=said.append) as vm:
        quick = outcome(vm, watched=False)
        assert b"".join(said) == b"." * POLLS
        r = vm.regs
        assert (r.r8, r.r9 & 0xFF, r.r10 & 0xFF, r.r11 & 0xFF) == (0x11223360, 0x61, 0x41, 0x60)
    with VM(elf64(GUEST), memory="4M", timing=timing) as vm:
        assert outcome(vm, watched=True) == quick


@pytest.mark.held_by("ept", why="software that shadows or traps sees every exit")
def test_the_engine_answers_and_a_restored_port_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was answered before a snapshot is restored says nothing of the port as it is then."""
    asked: list[int] = []
    with VM(elf64(GUEST), memory="4M") as vm:
        shortcuts = vm.board.ports.shortcuts
        (key,) = [key for key in shortcuts if key >> 16 == 0x3FD]
        poll = shortcuts[key]

        def ask(value: int) -> int:
            asked.append(value)
            return poll(value)

        monkeypatch.setitem(shortcuts, key, ask)
        power_on = vm.snapshot()
        vm.run()
        assert 0 < len(asked) < 5
        vm.board.serial.receive(b"x")
        full = vm.board.save()
        vm.restore(power_on)
        vm.board.restore(full)
        vm.run()
        assert vm.regs.r8 & 1


SPEAKER = f"""
    mov dx, 0x3f8
    mov ecx, 3
line:
    mov al, 0x61
    out dx, al
    mov al, 0x62
    out dx, al
    mov al, 0x0a
    out dx, al
    dec ecx
    jnz line
    mov ecx, 3000
long:
    mov al, 0x2e
    out dx, al
    dec ecx
    jnz long
    mov al, 0x2a
    out 0xe9, al
    mov al, 0x63
    out dx, al
    mov dx, 0x3fb
    mov al, 0x80
    out dx, al
    mov dx, 0x3f8
    mov al, 0x21
    out dx, al
    in al, dx
    mov r8d, eax
    mov dx, 0x3fb
    xor eax, eax
    out dx, al
    mov dx, 0x3f8
    mov al, 0x64
    out dx, al
    mov dx, 0x3f9
    mov al, 2
    out dx, al
    mov dx, 0x3fa
    in al, dx
    mov r9d, eax
    mov dx, 0x3f8
    mov al, 0x65
    out dx, al
    mov dx, 0x3fa
    in al, dx
    mov r10d, eax
    {OFF}
"""


@pytest.mark.parametrize("timing", ["fast", "cycle"])
def test_characters_are_heard_by_the_line_and_count_as_before(timing: str) -> None:
    said: list[bytes] = []
    with VM(elf64(SPEAKER), memory="4M", timing=timing, serial_output=said.append) as vm:
        each = outcome(vm, watched=False)
        r = vm.regs
        assert (r.r8 & 0xFF, r.r9 & 0xF, r.r10 & 0xF) == (0x21, 2, 2)
    whole = b"".join(said)
    assert whole == b"ab\n" * 3 + b"." * 3000 + b"*cde"
    heard: list[bytes] = []
    with VM(elf64(SPEAKER), memory="4M", timing=timing, serial_output=heard.append) as vm:
        vm.hear_lines()
        assert outcome(vm, watched=False) == each
    assert b"".join(heard) == whole
    with VM(elf64(SPEAKER), memory="4M", timing=timing) as vm:
        vm.hear_lines()
        assert outcome(vm, watched=True) == each


@pytest.mark.held_by("ept", why="software that shadows or traps sees every exit")
def test_a_line_comes_in_two_pieces() -> None:
    heard: list[bytes] = []
    with VM(elf64(SPEAKER), memory="4M", serial_output=heard.append) as vm:
        vm.hear_lines()
        vm.run()
    assert heard[3:5] == [b"ab", b"\n"]  # the first exit of all is software's
    assert len(heard) < 20


def test_what_is_no_whole_line_is_heard_before_a_restored_snapshot_speaks() -> None:
    heard: list[bytes] = []
    with VM(elf64(SPEAKER), memory="4M", serial_output=heard.append) as vm:
        vm.hear_lines()
        start = vm.snapshot()
        vm.run_until(150)
        begun = b"".join(heard)
        assert begun.startswith(b"ab\nab\nab\n....")
        assert not begun.endswith(b"\n")
        vm.restore(start)
        heard.clear()
        vm.run()
    assert b"".join(heard).startswith(b"ab\nab\nab\n....")
