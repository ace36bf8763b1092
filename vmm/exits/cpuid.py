"""CPUID: what the CPU model offers, and nothing from a hypervisor's leaves until a dialect has them."""

from typing import TYPE_CHECKING, Final

from hwmodel.vmx.exit import Exit
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_LOW: Final = 0xFFFF_FFFF


def handle_cpuid(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """Answer in EAX, EBX, ECX, EDX; the upper halves become zero."""
    regs = vcpu.regs
    regs.rax, regs.rbx, regs.rcx, regs.rdx = vcpu.cpuid.query(
        regs.rax & _LOW,
        regs.rcx & _LOW,
        apic_id=vcpu.index,
        cr4=regs.cr4,
        apic_enabled=bool(vcpu.lapic.base & 1 << 11),
    )
    return Outcome.SKIP
