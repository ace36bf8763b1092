"""IA32_TSC, IA32_TSC_ADJUST, IA32_TSC_DEADLINE from a guest ("Time-Stamp Counter Adjustment")."""

from dataclasses import replace
from typing import Any

import pytest

from hwmodel.arch.model import CpuModel
from tests.images import EXIT, elf64
from vmm import VM

ADJUST, TSC, DEADLINE, BASE = 0x3B, 0x10, 0x6E0, 0x1B
FAR = 1 << 40


def read(msr: int, into: str) -> str:
    return f"mov ecx, {msr}; rdmsr; shl rdx, 32; or rax, rdx; mov {into}, rax;"


def write(msr: int, value: str) -> str:
    return f"mov rax, {value}; mov rdx, rax; shr rdx, 32; mov ecx, {msr}; wrmsr;"


def finish(text: str) -> VM:
    vm = VM(elf64(text + EXIT))
    result = vm.run()
    assert result.reason == "debug_exit", result.message
    return vm


def test_adjust_starts_at_zero_and_moves_the_counter() -> None:
    with finish(
        read(ADJUST, "rbx")
        + read(TSC, "rsi")
        + write(ADJUST, str(FAR))
        + read(TSC, "rdi")
        + read(ADJUST, "rbp")
    ) as vm:
        assert vm.regs.rbx == 0
        assert vm.regs.rbp == FAR
        assert FAR < vm.regs.rdi - vm.regs.rsi < FAR + 1000


def test_writing_the_counter_moves_adjust_by_as_much() -> None:
    with finish(write(TSC, str(FAR)) + read(ADJUST, "rbx") + read(TSC, "rdi")) as vm:
        assert FAR - 1000 < vm.regs.rbx < FAR
        assert FAR < vm.regs.rdi < FAR + 1000


def test_moving_back_wraps_like_the_hardware() -> None:
    with finish(write(ADJUST, str((1 << 64) - 5)) + read(ADJUST, "rbx") + read(TSC, "rdi")) as vm:
        assert vm.regs.rbx == (1 << 64) - 5
        assert vm.regs.rdi < 1000


WAIT_FOR_DEADLINE = (
    write(0x1B, str(0xFEE00D00))  # x2APIC, bootstrap processor
    + write(0x80F, "0x1ff")
    + write(0x832, str(2 << 17 | 0x41))
    + "rdtsc; shl rdx, 32; or rax, rdx; mov rbx, rax; add rax, 50000; mov rdx, rax; shr rdx, 32;"
    + "mov ecx, 0x6e0; wrmsr; again: mov ecx, 0x822; rdmsr; test eax, 2; jz again;"
    + "rdtsc; shl rdx, 32; or rax, rdx; sub rax, rbx;"
)


def test_a_deadline_raises_its_vector_on_time() -> None:
    """Vector 0x41 is bit 1 of IRR register 2; interrupts stay off, the guest looks itself."""
    with finish(WAIT_FOR_DEADLINE) as vm:
        assert 50_000 <= vm.regs.rax < 50_100


@pytest.mark.parametrize(("feature", "msr"), [("tsc_adjust", ADJUST), ("tsc_deadline", DEADLINE)])
def test_without_the_feature_there_is_no_register(feature: str, msr: int, monkeypatch: Any) -> None:
    whole = CpuModel.load

    def load(name: str) -> Any:
        model = whole(name)
        return replace(model, features=model.features - {feature})

    monkeypatch.setattr(CpuModel, "load", staticmethod(load))
    with VM(elf64(read(msr, "rbx") + EXIT)) as vm:
        assert vm.run().reason == "triple_fault", "#GP, and no handler"


def test_a_deadline_in_the_far_future_is_not_waited_for() -> None:
    text = (
        write(0x1B, str(0xFEE00D00)) + write(0x80F, "0x1ff") + write(0x832, str(2 << 17 | 0x41))
        + write(0x6E0, str((1 << 64) - 1)) + "sti; hlt;"
    )  # fmt: skip
    with VM(elf64(text)) as vm:
        assert vm.run().reason == "halted"
