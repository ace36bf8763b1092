"""MSRs that VT-x lets the guest have, SWAPGS, and what shows time: all the hypervisor's here."""

from typing import TYPE_CHECKING, Any, Final

from hwmodel.arch.msr import Msr
from hwmodel.arch.vmcs import Field
from hwmodel.vmx.exit import Exit
from vmm.exits.emulator.machine import GuestFault
from vmm.exits.msr import handle_msr_read, handle_msr_write
from vmm.exits.trapped.operand import GP, is_address
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_LOW: Final = (1 << 32) - 1
_GS_BASE: Final = Field.GUEST_GS_BASE.index
_BY_FIELD: Final[dict[int, int]] = {
    Msr.FS_BASE: Field.GUEST_FS_BASE.index,
    Msr.GS_BASE: _GS_BASE,
    Msr.IA32_SYSENTER_CS: Field.GUEST_SYSENTER_CS.index,
    Msr.IA32_SYSENTER_ESP: Field.GUEST_SYSENTER_ESP.index,
    Msr.IA32_SYSENTER_EIP: Field.GUEST_SYSENTER_EIP.index,
    Msr.IA32_PKRS: Field.GUEST_IA32_PKRS.index,
}
_BY_NAME: Final[dict[int, str]] = {
    Msr.KERNEL_GS_BASE: "kernel_gs_base",
    Msr.STAR: "star",
    Msr.LSTAR: "lstar",
    Msr.CSTAR: "cstar",
    Msr.SYSCALL_MASK: "fmask",
    Msr.TSC_AUX: "tsc_aux",
}
_ADDRESSES: Final = {
    Msr.FS_BASE, Msr.GS_BASE, Msr.KERNEL_GS_BASE, Msr.LSTAR, Msr.CSTAR, Msr.IA32_SYSENTER_ESP,
    Msr.IA32_SYSENTER_EIP,
}  # fmt: skip
_NARROW: Final = {Msr.SYSCALL_MASK, Msr.TSC_AUX, Msr.IA32_PKRS}


def _is_own(vcpu: "Vcpu", number: int) -> bool:
    if number == Msr.IA32_PKRS:
        return "pks" in vcpu.cpuid.model.features
    return number in _BY_FIELD or number in _BY_NAME


def handle_rdmsr(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Answer in EDX:EAX."""
    number = vcpu.regs.rcx & _LOW
    if not _is_own(vcpu, number):
        return handle_msr_read(vcpu, vmexit)
    if number in _BY_FIELD:
        value = vcpu.vmcs.fields[_BY_FIELD[number]]
    else:
        value = getattr(vcpu.vmcs.native, _BY_NAME[number])
    vcpu.regs.rax, vcpu.regs.rdx = value & _LOW, value >> 32
    return Outcome.SKIP


def handle_wrmsr(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Take EDX:EAX."""
    regs = vcpu.regs
    number = regs.rcx & _LOW
    if not _is_own(vcpu, number):
        return handle_msr_write(vcpu, vmexit)
    value = (regs.rdx & _LOW) << 32 | regs.rax & _LOW
    bad_address = number in _ADDRESSES and not is_address(vcpu, value)
    if bad_address or (number in _NARROW and value >> 32):
        raise GuestFault(GP, 0)
    if number in _BY_FIELD:
        kept = value & _LOW if number == Msr.IA32_SYSENTER_CS else value
        vcpu.vmcs.fields[_BY_FIELD[number]] = kept
    else:
        setattr(vcpu.vmcs.native, _BY_NAME[number], value)
    return Outcome.SKIP


def handle_swapgs(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """Exchange GS's base and IA32_KERNEL_GS_BASE."""
    native: Any = vcpu.vmcs.native
    fields = vcpu.vmcs.fields
    fields[_GS_BASE], native.kernel_gs_base = native.kernel_gs_base, fields[_GS_BASE]
    return Outcome.SKIP


def handle_rdtsc(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """Show the guest's time-stamp counter."""
    tsc, gpr = vcpu.shown_tsc(), vcpu.regs.gpr
    gpr[0], gpr[2] = tsc & _LOW, tsc >> 32
    return Outcome.SKIP


def handle_rdtscp(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Show it, with IA32_TSC_AUX."""
    vcpu.regs.gpr[1] = vcpu.vmcs.native.tsc_aux & _LOW
    return handle_rdtsc(vcpu, vmexit)


def refuse(_vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """RDPMC: no counters are offered."""
    raise GuestFault(GP, 0)
