"""REP STOS and MOVS do most of a page at once: the guest sees what one step at a time does.

The judge is the manual's operation of these instructions, written out below over a byte array.
"""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodel.arch.exits import ExitReason
from tests.bare import CODE, Bare

Make = Callable[..., Bare]
AREA, SIZE = 0x200000, 0x6000
BYTES = {1: "", 2: "0x66, ", 4: "", 8: "0x48, "}
OPCODES = {"stos": 0xAA, "movs": 0xA4}
LATER = CODE + 0x800


def wanted(area: bytearray, op: str, width: int, to: int, source: int, count: int) -> bytes:
    """What `count` elements of `width` bytes leave in the area (offsets into it), one by one."""
    pattern = (0x1122334455667788).to_bytes(8, "little")[:width]
    for _ in range(count):
        area[to : to + width] = pattern if op == "stos" else area[source : source + width]
        to, source = to + width, source + width
    return bytes(area)


@settings(max_examples=60, deadline=None)
@given(
    op=st.sampled_from(["stos", "movs"]),
    width=st.sampled_from(list(BYTES)),
    count=st.one_of(st.integers(0, 40), st.integers(0, 1500)),
    to=st.integers(0, 0x2000),
    gap=st.one_of(st.integers(-70, 70), st.integers(-0x2000, 0x2000)),
)
def test_as_one_by_one(op: str, width: int, count: int, to: int, gap: int) -> None:
    source = max(0, to + gap)
    before = bytearray((n * 7 + (n >> 8)) & 0xFF for n in range(SIZE))
    machine = Bare()
    try:
        machine.poke(AREA, bytes(before))
        machine.regs.rax, machine.regs.rcx = 0x1122334455667788, count
        machine.regs.rdi, machine.regs.rsi = AREA + to, AREA + source
        opcode = OPCODES[op] + (width > 1)
        vmexit = machine.run(f"nop; .byte 0xf3, {BYTES[width]}{opcode}; hlt")
        assert vmexit.reason == ExitReason.HLT
        assert machine.pcpu.instructions == 2
        assert bytes(machine.ram.view[AREA : AREA + SIZE]) == wanted(
            before, op, width, to, source, count
        )
        moved = count * width
        assert (machine.regs.rcx, machine.regs.rdi) == (0, AREA + to + moved)
        assert machine.regs.rsi == AREA + source + (moved if op == "movs" else 0)
    finally:
        machine.close()


def test_downwards(bare: Make) -> None:
    machine = bare()
    machine.run("std; mov ecx, 100; mov edi, 0x200063; mov al, 7; rep stosb; hlt")
    assert bytes(machine.ram.view[AREA : AREA + 101]) == b"\7" * 100 + b"\0"
    assert machine.regs.rdi == AREA - 1


def test_it_stops_at_the_page_that_is_not_there(bare: Make) -> None:
    machine = bare(pages_4k=True)
    machine.word(0x20000 + 8, 0)  # the second page behind 2 MiB
    machine.intercept(14)
    vmexit = machine.run("mov edi, 0x200100; mov ecx, 0x1000; mov eax, 9; rep stosb; hlt")
    assert (vmexit.reason, vmexit.qualification) == (ExitReason.EXCEPTION_NMI, 0x201000)
    assert (machine.regs.rcx, machine.regs.rdi) == (0x100, 0x201000)
    assert machine.peek(0x200FF8) == 0x0909090909090909


def test_code_that_is_overwritten_runs_as_it_is_now(bare: Make) -> None:
    machine = bare()
    machine.load("mov eax, 1; ret", LATER)
    machine.load("mov eax, 2; ret", LATER + 0x400)
    machine.run(
        f"mov ebx, {LATER}; call rbx; mov r8d, eax; mov esi, {LATER + 0x400}; mov edi, {LATER};"
        "mov ecx, 64; rep movsb; call rbx; hlt"
    )
    assert (machine.regs.r8, machine.regs.rax) == (1, 2)


def test_a_page_that_is_read_only_is_not_written(bare: Make) -> None:
    machine = bare(pages_4k=True)
    machine.regs.cr0 |= 1 << 16
    machine.word(0x20000 + 8, 0x201000 | 5)
    machine.intercept(14)
    vmexit = machine.run("mov edi, 0x200FC0; mov ecx, 0x100; mov al, 1; rep stosb; hlt")
    assert (vmexit.qualification, machine.regs.rcx) == (0x201000, 0x100 - 0x40)
    assert machine.peek(0x201000) == 0


@pytest.mark.parametrize("op", ["stosb", "stosq", "movsb", "movsq"])
def test_its_stores_are_logged(bare: Make, op: str) -> None:
    machine = bare()
    machine.regs.rdi, machine.regs.rsi = AREA, AREA + 0x4000
    machine.run(f"hlt; mov ecx, 300; rep {op}; hlt")
    log = machine.pcpu.dirty_log
    log[AREA >> 18] = 0
    machine.pcpu.harvest_dirty()
    machine.regs.rip += 1
    assert machine.enter().reason == ExitReason.HLT
    assert log[AREA >> 18] & 1
