"""The native dialect in whole VMs: beside KVM's, revoked as it runs, under a flickering CPUID."""

from pathlib import Path
from typing import Any

import pytest

from tests.images import OFF, elf64
from vmm import VM
from vmm.config import Config
from vmm.errors import UsageError
from vmm.pv.native.abi import Feature, FeatureState
from vmm.pv.native.native import Native

NOP = 0x5231_0000
WAITS = 5
WAYS: tuple[dict[str, Any], ...] = (
    {"mmu": "ept"}, {"mmu": "shadow"}, {"technique": "trap"}
)  # fmt: skip


def native_of(vm: VM) -> Native:
    native = vm.dialects["native"]
    assert isinstance(native, Native)
    return native


def revoke(images: Path, cmdline: str = "", **options: Any) -> tuple[bytes, Native, int]:
    """Revoke when the guest waits for it, offer again when it let go."""
    output = bytearray()
    with VM(
        images / "native_revoke.elf", memory="64M", dialects="kvm,native", cmdline=cmdline,
        serial_output=output.extend, max_instructions=3_000_000, **options,
    ) as vm:  # fmt: skip
        native = native_of(vm)
        for vmexit in vm:
            if vmexit.name == "VMCALL" and vm.regs.rax == NOP:
                if vm.regs.rbx == WAITS:
                    assert native.contract.revoke(Feature.ENTROPY) is FeatureState.REVOKING
                else:
                    assert native.contract.offer(Feature.ENTROPY)
        result = vm.result
        assert result is not None
        return bytes(output), native, result.status


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(way.values()))
def test_a_feature_goes_when_the_guest_says_so(images: Path, way: dict[str, Any]) -> None:
    output, native, status = revoke(images, **way)
    assert status == 1, output.decode()
    assert b"FAIL" not in output
    assert b"offered again, it works again" in output
    rules = [breach.rule.name for breach in native.referee.breaches]
    assert rules == ["INACTIVE_CALL"]  # the call that the guest makes to see that it is gone


def test_a_guest_that_never_acknowledges_keeps_it_and_is_reported(images: Path) -> None:
    output, native, status = revoke(images, "deaf", freq="10M")  # so that the grace period is short
    assert status == 68  # the limit: the guest ran on
    assert b"FAIL" not in output
    assert [breach.rule.name for breach in native.referee.breaches] == ["LATE_ACKNOWLEDGEMENT"]
    assert native.referee.breaches[0].rip
    assert native.contract.works(Feature.ENTROPY)


def test_an_active_feature_stays_while_cpuid_flickers(images: Path) -> None:
    """The hypervisor-present bit and the leaves go and come: what was agreed on holds."""
    with VM(images / "native_multicall.elf", memory="64M", dialects="native") as vm:
        native, seen = native_of(vm), 0

        @vm.on_exit("VMCALL")
        def _flicker(_vmexit: object) -> None:
            nonlocal seen
            seen += 1
            for vcpu in vm.vcpus:
                vcpu.cpuid_answers[1, 0] = (0, 0, 0, 0)
            vm.dialects.leaves.clear()
            active = native.contract.works(Feature.MULTICALL)
            assert active or seen < 10

        result = vm.run()
    assert result.status == 1
    assert not any(breach.rule.side == "host" for breach in native.referee.breaches)


def test_two_dialects_in_one_vm_each_with_its_leaves_and_numbers() -> None:
    code = "mov eax, 0x40000000; cpuid; mov r8, rbx; mov eax, 0x40000100; cpuid; mov r9, rbx; "
    code += "mov eax, 0x52310000; vmcall; mov r10, rax; mov eax, 1; vmcall; mov r11, rax; "
    code += "mov eax, 0x71110000; vmcall; " + OFF
    kvm, ring1 = b"KVMK", b"ring"
    for dialects, first, second in (("kvm,native", kvm, ring1), ("native,kvm", ring1, kvm)):
        with VM(elf64(code), memory="4M", dialects=dialects) as vm:
            vm.run()
            gpr = vm.regs.gpr
            assert int(gpr[8]).to_bytes(8, "little")[:4] == first
            assert int(gpr[9]).to_bytes(8, "little")[:4] == second
            assert (gpr[10], gpr[11]) == (0, 0)
            unknown = -1000 if first == kvm else -1
            assert vm.regs.rax == unknown % (1 << 64)


def test_a_wrong_word_is_refused() -> None:
    with pytest.raises(UsageError, match=r"native has no 'clock'; it has multicall, .*quantised"):
        VM(elf64(OFF), memory="4M", dialects="native,-clock")
    assert Config.of(image=elf64(OFF), dialects="native,-timer").dialects == ("native", "-timer")
