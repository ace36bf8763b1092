"""Several VMs in one process, several vCPUs in one VM, and what is left of VMs that are gone."""

import ctypes
import gc
from pathlib import Path

import pytest

from tests.images import EXIT, OFF, elf64
from vmm import VM

PAGE_BYTES = 4096


def counting(start: int) -> bytes:
    return elf64(f"mov r8d, 30; mov r9d, {start}; again: cpuid; inc r9; dec r8d; jnz again; {OFF}")


def test_several_at_once_do_not_meet() -> None:
    with VM(counting(0), memory="4M") as vm:
        alone = vm.run()
        digest = alone.digest()
    machines = [VM(counting(start), memory="4M") for start in (0, 100, 0)]
    steps = [iter(vm) for vm in machines]
    for exits in zip(*steps, strict=True):  # turn and turn about
        assert len({vmexit.rip for vmexit in exits}) == 1
    assert [vm.regs.r9 for vm in machines] == [30, 130, 30]
    assert machines[0].digest() == machines[2].digest() == digest
    assert machines[1].digest() != digest
    assert machines[1].run().instructions == alone.instructions
    for vm in machines:
        vm.close()


def test_one_closed_leaves_the_other() -> None:
    first, second = VM(counting(0), memory="4M"), VM(counting(5), memory="4M")
    steps = iter(second)
    next(steps)
    first.close()
    assert second.run().status == 0
    assert second.regs.r9 == 35
    second.close()


def resident_bytes() -> int:
    """What the process holds, when the C library has given back what it merely keeps."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


TOUCH = f"""
    mov edi, 0x200000
    mov ecx, 0x200000
    mov al, 1
    rep stosb
    {OFF}
"""


@pytest.mark.parametrize("closed", [True, False])
def test_dropped_machines_give_their_memory_back(closed: bool) -> None:
    image = elf64(TOUCH)

    def once() -> None:
        vm = VM(image, memory="16M")
        vm.run()
        if closed:
            vm.close()

    for _ in range(5):
        once()
    before = resident_bytes()
    for _ in range(50):
        once()
    assert resident_bytes() - before < 8 << 20  # 50 machines have touched 100 MiB and more


def test_memory_beyond_the_guests_is_bounded() -> None:
    before = resident_bytes()
    with VM(elf64(OFF), memory="1G") as vm:
        vm.run()
        assert resident_bytes() - before < 150 << 20


# The second processor starts in real mode at 0x8000, leaves a mark, and halts; the first waits.
START_SECOND = f"""
    mov rsp, 0x300000
    mov edi, 0x8000
    lea rsi, [rip + real]
    mov ecx, 32
    rep movsb
    mov edi, 0xfee000f0
    mov dword ptr [rdi], 0x1ff
    mov edi, 0xfee00310
    mov dword ptr [rdi], 0x01000000
    mov edi, 0xfee00300
    mov dword ptr [rdi], 0x4500
    mov dword ptr [rdi], 0x4608
    mov edi, 0x600
wait:
    mov al, [rdi]
    test al, al
    jz wait
    movzx eax, al
    {EXIT}
real:
    .byte 0xfa, 0x0f, 0xa2, 0xc6, 0x06, 0x00, 0x06, 0x2a, 0xf4, 0xeb, 0xfd
    .byte 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90
    .byte 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90
"""


def test_a_second_processor_is_started() -> None:
    with VM(elf64(START_SECOND), memory="4M", cpus=2, max_instructions=20_000_000) as vm:
        seen = [(vm.current.index, vmexit.name, vm.current.mode()) for vmexit in vm]
        result = vm.run()
    assert result.status == 0x2A << 1 | 1
    assert (1, "CPUID", "real") in seen
    assert (1, "HLT", "real") in seen


def test_without_it_nobody_answers() -> None:
    with VM(elf64(START_SECOND), memory="4M", cpus=1, max_instructions=2_000_000) as vm:
        result = vm.run()
    assert result.reason == "limit"


def test_two_processors_run_alike_each_time() -> None:
    def once(step: bool) -> tuple[object, ...]:
        with VM(elf64(START_SECOND), memory="4M", cpus=2, max_instructions=20_000_000) as vm:
            if step:
                for _ in vm:
                    pass
            result = vm.run()
            return result.instructions, result.cycles, result.exits, result.digest()

    assert once(False) == once(False) == once(True)


def test_the_message_names_the_processor_that_stopped() -> None:
    """The second one loads an empty IDT in real mode and faults; the first spins in long mode."""
    text = START_SECOND.replace(
        "0xfa, 0x0f, 0xa2, 0xc6", "0x0f, 0x01, 0x1e, 0x00, 0x70, 0x0f, 0x0b, 0xc6"
    )
    with VM(elf64(text), memory="4M", cpus=2, max_instructions=20_000_000) as vm:
        result = vm.run()
        assert vm.current.index == 1
    assert (result.status, result.reason) == (66, "triple_fault")
    assert "RIP 0x5, real mode" in result.message
