"""The guest's own exceptions: the real ones lead to the hypervisor, which passes them on."""

from typing import TYPE_CHECKING, Final

from hwmodel.arch.events import EventType, Vector
from hwmodel.arch.vmcs import Field
from hwmodel.vmx.exit import Exit
from vmm.exits.shadowed import handle_exception
from vmm.exits.vectored import VectoredEvent, shut_down
from vmm.inject import show_debug_cause
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_VALID, _HAS_ERROR = 1 << 31, 1 << 11
_CONTRIBUTORY: Final = {Vector.DE, Vector.TS, Vector.NP, Vector.SS, Vector.GP}


def handle_reflected(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Page faults are the shadow's first; everything else is the guest's."""
    info = vmexit.interruption_info
    vector, kind = info & 0xFF, info >> 8 & 7
    if kind == EventType.HARDWARE_EXCEPTION:
        if vector == Vector.PF:
            return handle_exception(vcpu, vmexit)
        if vector == Vector.DB:
            show_debug_cause(vcpu, vmexit.qualification)
            vcpu.vmcs[Field.GUEST_DR7] = vcpu.regs.dr7 & ~(1 << 13)
    vcpu.vmcs.native.permitted = 0
    return _pass_on(vcpu, vmexit, info)


def _pass_on(vcpu: "Vcpu", vmexit: Exit, info: int) -> Outcome:
    """Manual, "Conditions for Generating a Double Fault": what the first event makes of it."""
    event, vmcs = VectoredEvent.of(vmexit), vcpu.vmcs
    first = event.vector if event.is_exception else None
    serious = info & 0xFF in _CONTRIBUTORY
    error = vmexit.interruption_error
    if serious and first == Vector.DF:
        return shut_down(vcpu)
    if serious and (first in _CONTRIBUTORY or first == Vector.PF):
        info, error = EventType.HARDWARE_EXCEPTION << 8 | _HAS_ERROR | Vector.DF, 0
    if not vcpu.regs.cr0 & 1:
        info &= ~_HAS_ERROR
    vmcs[Field.VM_ENTRY_INTR_INFO_FIELD] = _VALID | info
    vmcs[Field.VM_ENTRY_EXCEPTION_ERROR_CODE] = error if info & _HAS_ERROR else 0
    vmcs[Field.VM_ENTRY_INSTRUCTION_LEN] = vmexit.instruction_length
    return Outcome.RESUME
