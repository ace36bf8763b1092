"""CPUID: what the CPU model offers, and who the hypervisor is.

Leaf 0x40000000 carries ring1's own signature and no further leaf: dialects add theirs.
"""

from struct import unpack
from typing import TYPE_CHECKING, Final

from hwmodel.vmx.exit import Exit
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_LOW: Final = 0xFFFF_FFFF
_HYPERVISOR: Final = 0x4000_0000
_SIGNATURE: Final = (_HYPERVISOR, *unpack("<3I", b"ring1ring1\0\0"))


def handle_cpuid(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """Answer in EAX, EBX, ECX, EDX; the upper halves become zero."""
    regs = vcpu.regs
    if regs.rax & _LOW == _HYPERVISOR:
        regs.rax, regs.rbx, regs.rcx, regs.rdx = _SIGNATURE
        return Outcome.SKIP
    regs.rax, regs.rbx, regs.rcx, regs.rdx = vcpu.cpuid.query(
        regs.rax & _LOW,
        regs.rcx & _LOW,
        apic_id=vcpu.index,
        cr4=regs.cr4,
        apic_enabled=bool(vcpu.lapic.base & 1 << 11),
    )
    return Outcome.SKIP
