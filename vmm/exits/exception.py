"""Exceptions that exit, triple faults, and everything nobody handles: the guest is stopped."""

from typing import TYPE_CHECKING, Final

from hwmodel.arch.events import EventType
from hwmodel.vmx.exit import Exit
from vmm.exits.emulator.machine import GuestFault
from vmm.exits.vectored import VectoredEvent, inject_during, shut_down
from vmm.inject import inject_exception, inject_software_exception, show_debug_cause
from vmm.outcome import Outcome, StopReason

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_DB: Final = 1


def handle_exception_nmi(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Give an intercepted exception to the guest: only observers ask for these exits."""
    info = vmexit.interruption_info
    if info & 0xFF == _DB:  # an injected #DB shows only what software puts into DR6
        show_debug_cause(vcpu, vmexit.qualification)
    error = vmexit.interruption_error if info & 1 << 11 else None
    if info >> 8 & 7 in (EventType.PRIVILEGED_SOFTWARE_EXCEPTION, EventType.SOFTWARE_EXCEPTION):
        inject_software_exception(vcpu, info, vmexit.instruction_length)
        return Outcome.RESUME
    during = VectoredEvent.of(vmexit)
    if during.is_exception:  # else it would fault again at the same place, for ever
        return inject_during(vcpu, during, GuestFault(info & 0xFF, error, vmexit.qualification))
    inject_exception(vcpu, info & 0xFF, error, vmexit.qualification)
    return Outcome.RESUME


def handle_triple_fault(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """Shut down: no exception could be delivered, nor the double fault after it."""
    return shut_down(vcpu)


def handle_entry_failure(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Stop: the guest state or an MSR that was to be loaded cannot be a processor's."""
    check = vcpu.pcpu.failed_check
    why = f"check {check}" if check else f"MSR list entry {vmexit.qualification}"
    vcpu.stop(StopReason.ENTRY_FAILURE, f"VM entry failed: {vmexit.name}, {why}")
    return Outcome.STOP


def unhandled(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Stop the guest and say which exit it was."""
    what = f"exit {vmexit.name} (qualification {vmexit.qualification:#x}) is not handled"
    vcpu.stop(StopReason.UNHANDLED, what)
    return Outcome.STOP
