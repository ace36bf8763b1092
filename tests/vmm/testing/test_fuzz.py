"""Random programs against the host processor; a child that dies; the same seed again."""

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from vmm.testing.assembler import assemble
from vmm.testing.fuzz.campaign import run_span, state_of
from vmm.testing.fuzz.compare import Difference, compare
from vmm.testing.fuzz.forms import FAMILIES, forms
from vmm.testing.fuzz.generate import program, programs
from vmm.testing.fuzz.machines import HostMachine, Ring1Machine
from vmm.testing.fuzz.record import DATA, Program, State, make_batch, slot_address
from vmm.testing.fuzz.shrink import shrink

needs_host = pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="the host is no x86-64 processor"
)
FX = b"\x7f\x03" + bytes(22) + b"\x80\x1f" + bytes(486)


@pytest.fixture(scope="module")
def ring1() -> Iterator[Ring1Machine]:
    machine = Ring1Machine()
    yield machine
    machine.close()


@pytest.fixture(scope="module")
def host() -> Iterator[HostMachine]:
    with HostMachine(patience=5) as machine:
        yield machine


def made(text: str, number: int = 0, **registers: int) -> Program:
    """A program from assembly, for slot `number`."""
    gpr = [0] * 16
    gpr[4] = DATA + 0x4840
    for name, value in registers.items():
        gpr[int(name[1:])] = value
    at = slot_address(number)
    start = State(64, at, tuple(gpr), 0x202, FX, bytes(768), end_mask=0x8D5, fault_mask=0x8D5)
    return Program((assemble(text, at),), start)


@needs_host
@pytest.mark.oracle
def test_every_family_agrees_with_the_host(ring1: Ring1Machine, host: HostMachine) -> None:
    found = run_span(3, 0, 4000, ring1, host)
    assert not found.deaths
    assert not found.differences, [
        (n, [code.hex() for code in difference.program.instructions], difference.lines())
        for n, difference in found.differences
    ]
    assert found.faults[3] > 2000
    assert {0, 6, 13, 14} <= set(found.faults)


@needs_host
@pytest.mark.oracle
def test_a_difference_is_seen(ring1: Ring1Machine, host: HostMachine) -> None:
    """The comparison itself: each part of the state, changed on one side, is news."""
    batch = [made("add rax, 1; movq xmm3, rax; mov [0x20000400], rax; stc")]
    theirs = state_of(host.run(make_batch(batch)), 0)
    assert compare(batch[0], state_of(ring1.run(make_batch(batch)), 0), theirs) == ()
    for text in ("add rax, 2", "stc", "movq xmm3, rsp", "mov [0x20000400], rsp", "ud2", "fld1"):
        other = state_of(ring1.run(make_batch([made(text)])), 0)
        assert isinstance(compare(batch[0], other, theirs), Difference), text


@needs_host
@pytest.mark.oracle
@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("mov eax, 39; syscall; mov edi, eax; mov esi, 9; mov eax, 62; syscall", "by SIGKILL"),
        ("mov eax, 39; syscall; mov edi, eax; mov esi, 6; mov eax, 62; syscall", "by SIGABRT"),
        ("mov eax, 60; mov edi, 5; syscall", "exited with status 5"),
        ("x: jmp x", "hung"),
    ],
)
def test_a_child_that_dies_loses_nothing_else(text: str, how: str) -> None:
    with HostMachine(patience=1) as host:
        batch = [made("mov eax, 7", 0), made(text, 1), made("mov eax, 9", 2)]
        records = host.run(make_batch(batch))
        assert list(host.deaths) == [1]
        assert how in host.deaths[1]
        assert [state_of(records, n).gpr[0] for n in (0, 2)] == [7, 9]
        assert state_of(host.run(make_batch(batch[:1])), 0).gpr[0] == 7
        assert not host.deaths


def test_the_same_seed_makes_the_same_programs() -> None:
    assert programs(5, 100, 50) == programs(5, 100, 50)
    assert programs(5, 100, 50) != programs(6, 100, 50)
    one = program(5, 120, 20)
    assert one == programs(5, 100, 50)[20]


def test_every_form_is_drawn() -> None:
    """A form that never comes out of the generator would be a hole that nobody sees."""
    for bits in (32, 64):
        for family in FAMILIES:
            assert len(forms(family, bits)) >= 10
    made_of = b"".join(p.code for p in programs(1, 0, 1900))
    for opcode in ("0f38f0", "0fc7", "660f3a44", "d9fa", "0ff6", "f20f58"):
        assert bytes.fromhex(opcode) in made_of


def test_shrinking_keeps_what_differs() -> None:
    """A register at zero sends an access where the machines' pages differ: no smaller form."""
    whole = made("add rax, rbx; mov [rdi], rax", r0=5, r3=7, r7=DATA)
    whole = replace(whole, instructions=(whole.code[:3], whole.code[3:]))
    end = whole.start

    def elsewhere(programs: list[Program]) -> list[tuple[State, State]]:
        fault = replace(end, vector=14, address=0)
        return [(replace(fault, error=7), replace(fault, error=6)) for _ in programs]

    def the_same(programs: list[Program]) -> list[tuple[State, State]]:
        ours = replace(end, gpr=(1, *end.gpr[1:]))
        return [(ours, replace(end, gpr=(2, *end.gpr[1:]))) for _ in programs]

    (ours, theirs), *_ = the_same([whole])
    found = Difference(whole, ours, theirs)
    assert shrink(found, elsewhere) == found
    smaller = shrink(found, the_same)
    assert len(smaller.program.instructions) == 1
    assert not any(value for n, value in enumerate(smaller.program.start.gpr) if n != 4)
