"""The flush that KVM's dialect carries out for a virtual CPU concerns that one's VPID alone."""

from hwmodel.pcpu import Pcpu
from tests.images import elf64
from vmm import VM


def misses(pcpu: Pcpu) -> int:
    counted = pcpu.mmu_counters()["misses"]
    assert isinstance(counted, list)
    return sum(counted)


def test_the_others_translations_stay() -> None:
    with VM(elf64("cli; hlt"), memory="8M", cpus=2) as vm:
        first, second = vm.vcpus
        second.regs.cr0, second.regs.cr4 = first.regs.cr0, first.regs.cr4
        second.regs.cr3, second.regs.efer = first.regs.cr3, first.regs.efer

        def looks(vcpu: object) -> int:
            before = misses(vm.pcpu)
            assert isinstance(vm.pcpu.read(getattr(vcpu, "vmcs"), 0x10_0000, 1), bytes)  # noqa: B009
            return misses(vm.pcpu) - before

        for vcpu in (first, second):
            looks(vcpu)
        assert (looks(first), looks(second)) == (0, 0)
        first.flush_translations()
        assert looks(second) == 0
        assert looks(first) == 1
