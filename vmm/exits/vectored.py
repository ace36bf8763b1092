"""An exit during the delivery of an event, and what a fault then becomes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hwmodel.arch.events import EventType, Vector
from hwmodel.vmx.exit import Exit
from vmm.exits.emulator.machine import GuestFault
from vmm.inject import inject_exception
from vmm.outcome import Outcome, StopReason

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_VALID, _HAS_ERROR = 1 << 31, 1 << 11
_EXT: Final = 1
_SELECTOR_FAULTS: Final = {Vector.TS, Vector.NP, Vector.SS, Vector.GP}
_CONTRIBUTORY: Final = {Vector.DE, *_SELECTOR_FAULTS}


@dataclass(frozen=True, slots=True)
class VectoredEvent:
    """What was being delivered; `error` is None if it pushes none, `kind` an EventType."""

    valid: bool
    kind: int
    vector: int
    error: int | None

    @classmethod
    def of(cls, vmexit: Exit) -> "VectoredEvent":
        """Read the IDT-vectoring information."""
        info = vmexit.idt_vectoring_info
        error = vmexit.idt_vectoring_error if info & _HAS_ERROR else None
        return cls(bool(info & _VALID), info >> 8 & 7, info & 0xFF, error)

    @property
    def is_exception(self) -> bool:
        """A hardware exception."""
        return self.valid and self.kind == EventType.HARDWARE_EXCEPTION

    @property
    def is_external(self) -> bool:
        """Not of the program's own doing: EXT is set in error codes."""
        software = (EventType.SOFTWARE_INTERRUPT, EventType.SOFTWARE_EXCEPTION)
        return self.valid and self.kind not in software

    @property
    def by_instruction(self) -> bool:
        """INT n, INT3, INTO, ICEBP: the old task goes on after it."""
        return self.valid and self.kind >= EventType.SOFTWARE_INTERRUPT


def shut_down(vcpu: "Vcpu") -> Outcome:
    """No exception could be delivered, nor the double fault after it."""
    vcpu.stop(StopReason.TRIPLE_FAULT, "triple fault: no handler for an exception could be reached")
    return Outcome.STOP


def inject_during(vcpu: "Vcpu", event: VectoredEvent, fault: GuestFault) -> Outcome:
    """Combine with the event that was being delivered ("Conditions for Generating a Double Fault").

    Benign ones, among them a double fault that exited itself, are delivered as they are.
    """
    first = event.vector if event.is_exception else None
    error = fault.error_code
    if fault.vector in _SELECTOR_FAULTS and event.is_external and error is not None:
        error |= _EXT
    if first == Vector.DF and fault.vector in (*_CONTRIBUTORY, Vector.PF):
        return shut_down(vcpu)
    if fault.vector == Vector.PF and first == Vector.PF:
        vcpu.regs.cr2 = fault.address or 0  # the double fault's handler finds the second address
    contributes = fault.vector in _CONTRIBUTORY
    doubled = first in _CONTRIBUTORY and contributes
    if doubled or (first == Vector.PF and (contributes or fault.vector == Vector.PF)):
        inject_exception(vcpu, Vector.DF, 0)
    else:
        inject_exception(vcpu, fault.vector, error, fault.address or 0)
    return Outcome.RESUME
