"""Dialects in a whole VM: discovery, refusals, and garbage through the real exits."""

import random
from struct import pack

import pytest

from hwmodel.arch.vmcs import Field
from hwmodel.vmx.exit import Exit
from tests.images import OFF, elf64
from vmm import VM, Outcome
from vmm.activity import Activity
from vmm.exits.hypercall import handle_vmcall
from vmm.exits.msr import handle_msr_read, handle_msr_write
from vmm.inject import deliver_pending
from vmm.pv.kvm.abi import Call, KvmMsr
from vmm.sched.build import turns_of
from vmm.vcpu import Vcpu

ASK = f"mov eax, 0x40000000; cpuid; {OFF}"
FUZZED = 20_000
LOW = 0xFFFF_FFFF


def signature(dialects: str | None = None) -> bytes:
    with VM(elf64(ASK), memory="4M", dialects=dialects) as vm:
        vm.run()
        regs = vm.regs
        return pack("<3I", regs.rbx, regs.rcx, regs.rdx).rstrip(b"\0")


def test_discovery() -> None:
    assert signature() == signature("kvm") == b"KVMKVMKVM"
    assert signature("none") == b"ring1ring1"


def features(dialects: str | None = None) -> int:
    code = f"mov eax, 0x40000001; cpuid; {OFF}"
    with VM(elf64(code), memory="4M", dialects=dialects) as vm:
        vm.run()
        return int(vm.regs.rax)


def test_a_feature_less() -> None:
    assert features() ^ features("kvm,-steal_time") == 1 << 5
    assert features("none") == 0


@pytest.mark.parametrize("code", ["vmcall", "vmmcall", "mov ecx, 0x4b564d00; wrmsr"])
def test_without_a_dialect_it_faults(code: str) -> None:
    """No IDT: the fault becomes a triple fault."""
    with VM(elf64(f"{code}; {OFF}"), memory="4M", dialects="none", reboot=False) as vm:
        assert vm.run().reason == "triple_fault"
    with VM(elf64(f"{code}; {OFF}"), memory="4M", reboot=False) as vm:
        assert vm.run().reason == "halted"


def test_an_error_is_a_negative_number_of_64_bits() -> None:
    with VM(elf64(f"mov rax, 0x123456789; vmcall; {OFF}"), memory="4M") as vm:
        vm.run()
        assert vm.regs.rax == (1 << 64) - 1000


def test_a_reset_forgets_and_a_snapshot_does_not() -> None:
    code = "mov ecx, 0x4b564d01; mov eax, 0x200001; xor edx, edx; wrmsr; cpuid; " + OFF
    with VM(elf64(code), memory="4M") as vm:
        fresh = vm.dialects.save()
        for vmexit in vm:
            if vmexit.name == "CPUID":
                break
        kept, told = vm.snapshot(), vm.dialects.save()
        assert told != fresh
        vm.vcpus[0].init_signal()
        assert vm.dialects.save() == fresh
        vm.restore(kept)
        assert vm.dialects.save() == told
        assert vm.memory.read(0x200000 + 29, 1) == b"\x01"


def wild(chance: random.Random) -> int:
    return chance.choice(
        (chance.getrandbits(64), chance.randrange(1 << 22), 1 << chance.randrange(64), LOW)
    )


def one_exit(vcpu: Vcpu, vmexit: Exit, chance: random.Random) -> Outcome:
    regs = vcpu.regs
    regs.rax, regs.rbx, regs.rdx, regs.rsi = (wild(chance) for _ in range(4))
    regs.rcx = wild(chance)
    if chance.random() < 0.4:
        regs.rax = chance.choice(list(Call))
        return handle_vmcall(vcpu, vmexit)
    regs.rcx = chance.choice(list(KvmMsr)) | wild(chance) & ~LOW
    return chance.choice((handle_msr_write, handle_msr_read))(vcpu, vmexit)


def test_garbage_in_registers_never_raises() -> None:
    """What the hypervisor writes in answer stays inside RAM: anything else is an exception."""
    chance = random.Random(5)
    with VM(elf64(f"again: cpuid; jmp again; {OFF}"), memory="4M", cpus=3) as vm:
        steps = iter(vm)
        seen = next(steps)
        for vcpu in vm.vcpus:
            vcpu.activity = Activity.RUNNING
        for _ in range(FUZZED):
            vcpu = chance.choice(vm.vcpus)
            if vcpu is not vm.current and chance.random() < 0.3:
                turns_of(vm.scheduler).switch(vcpu)
            outcome = one_exit(vcpu, seen, chance)
            assert outcome in (Outcome.SKIP, Outcome.RESUME, Outcome.YIELD)
            vcpu.vmcs[Field.VM_ENTRY_INTR_INFO_FIELD] = 0
            deliver_pending(vcpu)
        assert vm.digest()
