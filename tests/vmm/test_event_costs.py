"""What events cost under --timing cycle: the model's figures, charged where the event is, and no
trace of whoever looks on or of what host time does to Unicorn.
"""

import re
import time
from pathlib import Path
from typing import Any

import pytest

from hwmodel.arch.exits import ExitReason
from hwmodel.arch.model import MODELS, CpuModel, names
from tests.bare import MIB
from tests.images import OFF, elf64
from vmm import VM
from vmm.errors import UsageError

pytestmark = pytest.mark.held_by("ept", why="prices the exits of VT-x with EPT")

COSTS = CpuModel.load().costs
CPUIDS = "mov ebp, 20; again: xor eax, eax; cpuid; dec ebp; jnz again;"


def run(text: str, **options: Any) -> VM:
    vm = VM(elf64(text), **({"memory": "4M", "timing": "cycle"} | options))
    vm.run()
    return vm


@pytest.mark.parametrize("model", names())
def test_an_exit_is_charged_with_its_handler_and_its_entry(model: str) -> None:
    costs = CpuModel.load(model).costs
    with run(CPUIDS + OFF, cpu_model=model) as vm:
        ledger = vm.ledger
    exits = ledger.exits
    one = costs.vm_exit + costs.handler(ExitReason.CPUID) + costs.vm_entry
    assert exits["CPUID"].cycles == 20 * one
    assert exits["HLT"].cycles == costs.vm_exit + costs.handler(ExitReason.HLT), "never entered"
    assert ledger["exit"] == 21 * costs.vm_exit
    assert ledger["entry"] == 21 * costs.vm_entry, "the first one follows no exit"
    assert ledger.total == vm.clock.now


def test_a_model_of_ones_own_has_the_block_costs_of_its_identity(tmp_path: Path) -> None:
    """Another name and other prices; a processor that nobody has a table of is refused."""
    text = (MODELS / "haswell.toml").read_text()
    mine, unknown = tmp_path / "mine.toml", tmp_path / "unknown.toml"
    mine.write_text(re.sub(r"vm_exit = { value = \d+", "vm_exit = { value = 7", text))
    unknown.write_text(text.replace("family = { value = 6", "family = { value = 7"))
    with run(CPUIDS + OFF, cpu_model=str(mine)) as vm, run(CPUIDS + OFF, cpu_model="haswell") as of:
        assert vm.ledger["exit"] == 21 * 7
        assert vm.ledger["guest"] == of.ledger["guest"]
    with pytest.raises(UsageError, match=r"family 7.*has no table") as refused:
        run(OFF, cpu_model=str(unknown))
    assert "\n" not in str(refused.value)
    run(OFF, cpu_model=str(unknown), timing="fast").close()


def test_near_and_far_devices() -> None:
    """A PIC is in the kernel, a serial port a process away; and no bus is slow beside that."""
    with run("in al, 0x21; mov dx, 0x3fd; in al, dx; in al, dx;" + OFF) as vm:
        assert vm.ledger["device"] == 2 * COSTS.far_device
        one = COSTS.round_trip + COSTS.handler(ExitReason.IO_INSTRUCTION)
        assert vm.ledger.exits["IO_INSTRUCTION"].cycles == 3 * one + vm.ledger["device"]


def test_memory_of_devices() -> None:
    text = "mov ebx, 0xfee00020; mov eax, [rbx]; mov ebx, 0xfed00000; mov eax, [rbx];"
    with run(text + OFF) as vm:
        assert vm.ledger.exits["EPT_VIOLATION"].count == 2
        assert vm.ledger["device"] == COSTS.far_device


IDT_AT_3M = """
    mov edi, 0x300000; lea rax, [rip + handler]; mov ecx, 32
    fill: mov word ptr [rdi], ax; mov word ptr [rdi + 2], cs; mov word ptr [rdi + 4], 0x8e00
    shr rax, 16; mov word ptr [rdi + 6], ax; shl rax, 16; lea rax, [rip + handler]
    add rdi, 16; loop fill
    mov edi, 0x301000; mov word ptr [rdi], 511; mov dword ptr [rdi + 2], 0x300000
    mov dword ptr [rdi + 6], 0; lidt [rdi]
"""
HANDLER = "handler: add qword ptr [rsp], 2; iretq;"


def test_a_guests_own_fault_is_its_own_time() -> None:
    """The same program with NOPs in the place of UD2: ten faults more, and nothing injected."""
    body = "mov r15d, 10; again: %s; dec r15d; jnz again; jmp over;" + HANDLER + "over:"
    with (
        run(IDT_AT_3M + body % "ud2" + OFF) as vm,
        run(IDT_AT_3M + body % "nop; nop" + OFF) as other,
    ):
        faults = vm.ledger["guest"] - other.ledger["guest"]
        assert 10 * COSTS.exception <= faults < 10 * (COSTS.exception + 160), "and IRET"
        assert vm.pcpu.deliveries == 10
        assert vm.ledger["injection"] == 0


STRIDE = """
    mov ecx, 64; mov ebx, 0x200000; mov esi, 4096
    next: mov eax, [rbx]; add rbx, rsi; loop next;
"""


def test_what_the_tlb_holds_costs_no_walk() -> None:
    with run(STRIDE + OFF) as once, run(STRIDE + STRIDE.replace("next", "more") + OFF) as twice:
        assert once.ledger["walk"] == twice.ledger["walk"] > 0


def test_a_walk_costs_what_its_references_do() -> None:
    """One page, cold: each reference comes from memory, and the EPT has large pages."""
    with run("mov eax, [0x200000];" + OFF) as vm:
        counted = vm.pcpu.mmu_counters()
        data_walks = counted["misses"]
        assert data_walks == [0, 1, 0]
        walk = vm.ledger["walk"]
        made = (walk - COSTS.references.nested_hit * 3) / COSTS.references.memory
    assert 5 <= made <= 24


SMALL_PAGES = """
    mov rax, cr3; mov rax, [rax]; and rax, -4096; mov rax, [rax]; and rax, -4096; mov rdx, rax
    mov edi, 0x3c0000; mov eax, 0x200003; mov ecx, 512
    map: mov [rdi], rax; add rax, 4096; add rdi, 8; loop map
    mov qword ptr [rdx + 8], 0x3c0003; mov rax, cr3; mov cr3, rax
"""
"""Of the second 2 MiB, so that a program can miss a TLB of 64 entries."""
TIMER = """
    mov edi, 0x300000 + 0x30 * 16; lea rax, [rip + tick]; mov word ptr [rdi], ax
    mov word ptr [rdi + 2], cs; mov word ptr [rdi + 4], 0x8e00; shr rax, 16
    mov dword ptr [rdi + 6], eax; mov dword ptr [rdi + 10], 0
    mov edi, 0x301000; mov word ptr [rdi], 4095; lidt [rdi]
    mov ebx, 0xfee00000; mov dword ptr [rbx + 0xf0], 0x1ff; mov dword ptr [rbx + 0x3e0], 0xb
    mov dword ptr [rbx + 0x320], 0x20030; mov dword ptr [rbx + 0x380], 500; mov al, 0xff
    out 0x21, al; sti
"""
TICK = """
    tick: push rax; push rbx; mov rax, [rsp + 16]; mov ebx, 0x302000; rol qword ptr [rbx], 5
    xor [rbx], rax; inc qword ptr [rbx + 8]; mov ebx, 0xfee000b0; mov dword ptr [rbx], 0
    pop rbx; pop rax; iretq
"""
"""Every few thousand cycles: what it interrupted is kept, so that an instruction more shows."""
MIXED = f"""
    {IDT_AT_3M} {SMALL_PAGES} {TIMER}
    mov r15d, 40; mov ebx, 0
    again:
        mov ecx, 240
        inner: add ebx, 0x3f0e8; and ebx, 0xffff8; lea rdi, [rbx + 0x200000]
            add [rdi], rcx; inc rdx; add rdx, [rdi + 0x1000]; xor rdx, rcx; loop inner
        push rbx; mov eax, 1; cpuid; pop rbx; ud2; in al, 0x21
        mov rsi, 0x200000; mov rdi, 0x280000; mov ecx, 2000; rep movsq; mov rax, cr3; mov cr3, rax
    dec r15d; jnz again; cli; jmp over; {HANDLER} {TICK} over:
"""


def mixed(**options: Any) -> VM:
    options = {"memory": "4M", "timing": "cycle", "cpu_model": "pentium-4-672"} | options
    return VM(elf64(MIXED + OFF), **options)


def outcome(vm: VM) -> tuple[object, ...]:
    vm.run()
    return vm.ledger, vm.clock.now, vm.pcpu.instructions, vm.digest()


def test_the_program_is_a_hard_one() -> None:
    with mixed() as vm:
        vm.run()
        assert vm.ledger.share("walk") > 0.1
        assert vm.memory.read(0x302008, 1)[0] > 15, "interrupts"
        assert vm.pcpu.deliveries > 55


def test_who_looks_on_changes_nothing() -> None:
    """Stops anywhere, and reads of linear memory that the TLB does not hold."""
    with mixed() as alone:
        expected = outcome(alone)
    with mixed() as vm:
        at = 0
        while vm.run_until(at) is None:
            at = vm.clock.now + 9_771
            for page in range(0x200000, 0x400000, 0x13000):
                vm.virtual[page : page + 8]
        assert outcome(vm) == expected


def test_host_sleeps_change_nothing() -> None:
    """Unicorn resizes its TLB by host time (gettimeofday windows of 100 ms)."""
    with mixed() as alone:
        expected = outcome(alone)
    with mixed() as vm:
        asleep = 0
        for vmexit in vm:
            if vmexit.sequence % 25 == 0 and asleep < 4:
                time.sleep(0.12)
                asleep += 1
        assert asleep == 4
        assert outcome(vm) == expected


def test_unicorns_tlb_emptied_changes_nothing() -> None:
    with mixed() as alone:
        expected, refills = outcome(alone), alone.pcpu.counters()["tlb_fills"]
    with mixed() as vm:
        for _ in vm:
            vm.pcpu.harvest_dirty()  # which empties it
        assert outcome(vm) == expected
        assert vm.pcpu.counters()["tlb_fills"] > refills


def test_time_is_the_same_in_every_mode_for_who_reads_no_clock() -> None:
    """The final state is the same whatever a cycle is."""
    text = SMALL_PAGES + STRIDE + CPUIDS + STRIDE.replace("next", "more") + OFF
    states = set()
    for timing in ("fast", "cycle"):
        with run(text, timing=timing) as vm:
            states.add((tuple(vm.regs.as_dict().values()), vm.memory.read(0, 4 * MIB)))
    assert len(states) == 1
