"""A session goes anywhere in a run and back, and the run is the one that nobody watched."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from hwmodel.cpu.stops import Watch
from tests.images import OFF, START, elf64
from vmm import VM
from vmm.debug.session import Session
from vmm.debug.stop import StopKind

# Memory, XMM, CMOS, CPUID; timer interrupts through an IDT; a fault; a REP; HLT with a wake-up.
WORK = f"""
    mov rax, cr4
    or eax, 0x600
    mov cr4, rax
    mov rsp, 0x300000
    mov edi, 0x280000
    mov r10, 32
idt:
    lea rax, [rip + tick]
    cmp r10, 32 - 14
    jne gate
    lea rax, [rip + fault]
gate:
    dec r10
    jnz idt_next
    jmp idt_done
idt_next:
    jmp idt
idt_done:
    lea rax, [rip + tick]
    mov edi, 0x280200
    call put_gate
    lea rax, [rip + fault]
    mov edi, 0x280060
    call put_gate
    mov word ptr [0x2f0000], 0xfff
    mov qword ptr [0x2f0002], 0x280000
    lidt [0x2f0000]
    mov al, 0x11
    out 0x20, al
    mov al, 32
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov al, 0xfe
    out 0x21, al
    mov al, 0x34
    out 0x43, al
    mov al, 0x80
    out 0x40, al
    mov al, 0
    out 0x40, al
    sti
    mov r8d, 12
    mov edi, 0x200000
again:
    inc qword ptr [0x200000]
    mov [0x200000 + r8 * 8], r8
    cvtsi2sd xmm0, r8d
    addsd xmm1, xmm0
    mov al, 0x40
    out 0x70, al
    in al, 0x71
    inc al
    out 0x71, al
    mov ecx, 300
spin:
    loop spin
    ud2
    mov edi, 0x210000
    mov ecx, 64
    rep stosq
    cpuid
    rdtsc
    add r9, rax
    hlt
    dec r8d
    jnz again
    {OFF}
put_gate:
    mov [rdi], ax
    mov word ptr [rdi + 2], cs
    mov word ptr [rdi + 4], 0x8e00
    shr rax, 16
    mov [rdi + 6], ax
    shr rax, 16
    mov [rdi + 8], eax
    mov dword ptr [rdi + 12], 0
    ret
fault:
    add qword ptr [rsp], 2
    iretq
tick:
    push rax
    inc qword ptr [0x220000]
    mov al, 0x20
    out 0x20, al
    pop rax
    iretq
"""


HELD: dict[str, dict[str, Any]] = {
    "vtx": {"technique": "vtx"},
    "shadow": {"technique": "vtx", "mmu": "shadow"},
    "trap": {"technique": "trap"},
}


@pytest.fixture(params=HELD)
def held(request: pytest.FixtureRequest) -> dict[str, Any]:
    return HELD[str(request.param)]


@pytest.fixture
def vm(held: dict[str, Any]) -> Iterator[VM]:
    with VM(elf64(WORK), memory="4M", **held) as machine:
        yield machine


def test_a_session_changes_nothing(vm: VM, held: dict[str, Any]) -> None:
    with VM(elf64(WORK), memory="4M", **held) as other:
        alone = other.run()
        session = Session(vm, interval=500)
        session.break_on_exit("reason=CPUID")
        session.break_at(START + 0x40)
        session.watch(0x20_0000, 8)
        session.watch(0x22_0000, 8, Watch.ACCESS, physical=True)
        stop, stops = session.resume(), 0
        while stop.kind is not StopKind.ENDED:
            stop, stops = session.resume(), stops + 1
        assert stops > 30
        result = stop.result
        assert result is not None
        assert result.digest() == alone.digest()
        assert (result.status, result.instructions, result.cycles, result.exits) == (
            alone.status, alone.instructions, alone.cycles, alone.exits,
        )  # fmt: skip
        assert result.ledger == alone.ledger


def test_forward_and_back_is_where_it_was(vm: VM) -> None:
    session = Session(vm, interval=700)
    end = session.resume().moment.steps
    chance = random.Random(1)
    for _ in range(120):
        at, count = chance.randrange(end - 100), chance.randrange(1, 90)
        session.goto_step(at)
        moment, digest = session.now, vm.digest()
        session.step(count)
        session.reverse_step(count)
        assert session.now == moment
        assert vm.digest() == digest


def test_the_way_there_does_not_matter(vm: VM) -> None:
    session = Session(vm, interval=400)
    session.next_exit(5)
    seen = {}
    while session.next_exit().kind is StopKind.EXIT:
        seen[session.now] = vm.digest()
        session.finish_exit()
        seen[session.now] = vm.digest()
        session.step(3)
        seen[session.now] = vm.digest()
    chance = random.Random(2)
    for moment in chance.sample(sorted(seen), 60):
        session.goto(moment)
        assert session.now == moment
        assert vm.digest() == seen[moment]


def test_breakpoints_are_met_alike_in_both_directions(vm: VM) -> None:
    session = Session(vm, interval=600)
    session.break_at(START + 0x120)
    session.watch(0x20_0000, 8)
    session.watch(0x21_0000, 64, physical=True)
    session.break_on_exit("port=0x70 & write | reason=HLT")
    session.break_on_exit("leaf in 0..0x100", after=True)
    forwards = []
    while (stop := session.resume()).kind is not StopKind.ENDED:
        forwards.append((stop.moment, stop.kind, stop.number, stop.address))
    backwards = []
    while (stop := session.reverse_resume()).kind is not StopKind.BEGIN:
        backwards.append((stop.moment, stop.kind, stop.number, stop.address))
    assert backwards == forwards[::-1]
    assert {kind for _, kind, _, _ in forwards} >= {StopKind.WATCHPOINT, StopKind.EXIT}


def test_reading_changes_nothing(vm: VM) -> None:
    session = Session(vm, interval=600)
    session.goto_step(900)
    before = vm.digest(), session.now, vm.pcpu.mmu_counters()
    assert vm.memory.read(0x20_0000, 16)
    assert vm.virtual[START : START + 4]
    assert (vm.digest(), session.now, vm.pcpu.mmu_counters()) == before


def test_checkpoints_stay_within_their_limit(vm: VM) -> None:
    session = Session(vm, interval=100)
    session.resume()
    assert len(session.checkpoints) > 3
    assert session.checkpoints.size <= session.checkpoints.limit == 2 * vm.config.memory
    session.reverse_step(2)
    assert session.is_in_the_past


def test_back_to_the_last_write(vm: VM) -> None:
    session = Session(vm, interval=600)
    session.goto_step(3000)
    count = vm.memory.read(0x20_0000, 8)
    stop = session.last_write(0x20_0000)
    assert stop.kind is StopKind.WATCHPOINT
    assert vm.memory.read(0x20_0000, 8) == count
    session.reverse_step()
    assert vm.memory.read(0x20_0000, 8) != count
