"""Reads of the serial port's line status, answered by the engine: as if software had been."""

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
