"""CPUID: what the CPU model offers, and who the hypervisor is.

Leaf 0x40000000 carries the first dialect's signature; without one it is ring1's own, and the only
leaf in the hypervisor's range.
"""

from struct import unpack
from typing import TYPE_CHECKING, Final

from hwmodel.vmx.exit import Exit
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_LOW: Final = 0xFFFF_FFFF
_CHANGING: Final = frozenset({1, 7, 0xD})  # follow CR4 and the APIC's enable bit
_KEPT: Final = 1024  # a guest can ask for any subleaf
_HYPERVISOR: Final = 0x4000_0000
_SIGNATURE: Final = (_HYPERVISOR, *unpack("<3I", b"ring1ring1\0\0"))


def handle_cpuid(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """Answer in EAX, EBX, ECX, EDX; the upper halves become zero."""
    regs = vcpu.regs
    gpr = regs.gpr
    question = gpr[0] & _LOW, gpr[1] & _LOW
    answer = vcpu.cpuid_answers.get(question) or _answer(vcpu, *question)
    eax, ebx, ecx, edx = answer
    regs.set_acdb(eax, ecx, edx, ebx)
    return Outcome.SKIP


def _answer(vcpu: "Vcpu", leaf: int, subleaf: int) -> tuple[int, int, int, int]:
    """Ask the model; what does not depend on the vCPU's state is kept."""
    if leaf >> 28 == _HYPERVISOR >> 28:
        return _hypervisor_leaf(vcpu, leaf)
    enabled = bool(vcpu.lapic.base & 1 << 11)
    answer = vcpu.cpuid.query(
        leaf, subleaf, apic_id=vcpu.index, cr4=vcpu.regs.cr4, apic_enabled=enabled
    )
    if leaf not in _CHANGING and len(vcpu.cpuid_answers) < _KEPT:
        vcpu.cpuid_answers[leaf, subleaf] = answer
    return answer


def _hypervisor_leaf(vcpu: "Vcpu", leaf: int) -> tuple[int, int, int, int]:
    if not vcpu.dialects and leaf == _HYPERVISOR:
        return _SIGNATURE
    return vcpu.dialects.leaves.get(leaf, (0, 0, 0, 0))
