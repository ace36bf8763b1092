"""VMCALL and VMMCALL: number and arguments in registers, asked of the dialects in order.

Registers as KVM has them (Linux Documentation/virt/kvm/x86/hypercalls.rst): number in RAX,
arguments in RBX, RCX, RDX, RSI, result in RAX; RDI, R8, R9 and R10 are for dialects that use more.
Outside 64-bit code the low halves count.
"""

from typing import TYPE_CHECKING, Final

from hwmodel.vmx.exit import Exit
from vmm.inject import inject_exception
from vmm.outcome import Outcome
from vmm.pv.dialect import Hypercall

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_UD: Final = 6
_LOW: Final = 0xFFFF_FFFF
_MASK64: Final = (1 << 64) - 1


def handle_vmcall(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """Answer in RAX; #UD where nobody speaks any dialect, as on a machine without a hypervisor."""
    if not vcpu.dialects:
        inject_exception(vcpu, _UD, None)
        return Outcome.RESUME
    mask = _MASK64 if vcpu.code_bits() == 64 else _LOW
    result = vcpu.dialects.hypercall(vcpu, _call(vcpu, mask))
    vcpu.regs.rax = result & mask
    vcpu.look_for_events = True
    if vcpu.is_stopped():  # a shutdown does not come back
        vcpu.vmcs.skip_exit()
        return Outcome.STOP
    if not vcpu.gave_turn:
        return Outcome.SKIP
    vcpu.gave_turn = False
    vcpu.vmcs.skip_exit()
    return Outcome.YIELD


def _call(vcpu: "Vcpu", mask: int) -> Hypercall:
    rax, rcx, rdx, rbx, _, _, rsi, rdi, r8, r9, r10 = vcpu.regs.gpr[0:11]
    arguments = rbx & mask, rcx & mask, rdx & mask, rsi & mask, rdi & mask, r8 & mask
    return Hypercall(rax & mask, arguments, mask == _MASK64, (r9 & mask, r10 & mask))
