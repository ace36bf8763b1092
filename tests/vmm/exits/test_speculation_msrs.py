"""IA32_ARCH_CAPABILITIES, IA32_SPEC_CTRL, IA32_PRED_CMD ("Speculative Execution Side Channel")."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from hwmodel.arch.model import CpuModel
from tests.images import EXIT, elf64
from vmm import VM

Remove = Callable[..., None]
SPEC_CTRL, PRED_CMD, ARCH_CAPABILITIES = 0x48, 0x49, 0x10A
RDCL_NO, IBRS_ALL, SKIP_L1DFL, MDS_NO = 1 << 0, 1 << 1, 1 << 3, 1 << 5


def read(msr: int) -> str:
    return f"mov ecx, {msr}; rdmsr; shl rdx, 32; or rax, rdx; mov rbx, rax; {EXIT}"


def write(msr: int, value: int) -> str:
    return f"mov eax, {value & 0xFFFFFFFF}; mov edx, {value >> 32}; mov ecx, {msr}; wrmsr;"


def ends(text: str) -> str:
    with VM(elf64(text)) as vm:
        return vm.run().reason


@pytest.fixture(name="without")
def _without(monkeypatch: pytest.MonkeyPatch) -> Remove:
    """The default model with features taken away."""
    whole = CpuModel.load

    def remove(*features: str) -> None:
        def load(name: str) -> CpuModel:
            model = whole(name)
            return replace(model, features=model.features - set(features), immunities=frozenset())

        monkeypatch.setattr(CpuModel, "load", staticmethod(load))

    return remove


def test_the_part_says_what_it_is_immune_to() -> None:
    """Cascade Lake is not affected by Meltdown, L1TF and MDS, and has enhanced IBRS."""
    with VM(elf64(read(ARCH_CAPABILITIES))) as vm:
        assert vm.run().reason == "debug_exit"
        known = RDCL_NO | IBRS_ALL | SKIP_L1DFL | MDS_NO
        assert vm.regs.rbx & known == known


def test_cpuid_and_the_msrs_agree() -> None:
    """CPUID.7.0:EDX: 26 SPEC_CTRL, 27 STIBP, 29 ARCH_CAPABILITIES, 31 SSBD."""
    with VM(elf64(f"mov eax, 7; xor ecx, ecx; cpuid; mov ebx, edx; {EXIT}")) as vm:
        vm.run()
        edx = vm.regs.rbx
    accepted = sum(
        1 << bit for bit in range(64) if ends(write(SPEC_CTRL, 1 << bit) + EXIT) == "debug_exit"
    )
    assert edx >> 26 & 1
    assert edx >> 29 & 1
    assert accepted == 1 | (edx >> 27 & 1) << 1 | (edx >> 31 & 1) << 2


def test_spec_ctrl_keeps_what_was_written() -> None:
    with VM(elf64(write(SPEC_CTRL, 1) + read(SPEC_CTRL))) as vm:
        assert vm.run().reason == "debug_exit"
        assert vm.regs.rbx == 1


def test_the_barrier_is_write_only_and_has_one_command() -> None:
    assert ends(write(PRED_CMD, 1) + EXIT) == "debug_exit"
    assert ends(write(PRED_CMD, 2) + EXIT) == "triple_fault"
    assert ends(read(PRED_CMD)) == "triple_fault"


def test_capabilities_are_read_only() -> None:
    assert ends(write(ARCH_CAPABILITIES, 0) + EXIT) == "triple_fault"


@pytest.mark.parametrize("msr", [SPEC_CTRL, PRED_CMD, ARCH_CAPABILITIES])
def test_without_the_feature_there_is_no_msr(msr: int, without: Remove) -> None:
    without("spec_ctrl", "arch_capabilities")
    assert ends(read(msr)) == "triple_fault"
    assert ends(write(msr, 0) + EXIT) == "triple_fault"
