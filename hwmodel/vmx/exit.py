"""An exit is a value: a plain view of the C engine's exit record."""

from typing import Any, Final

from hwmodel.arch.exits import ExitReason
from hwmodel.arch.operations import Operation
from hwmodel.cpu.unicorn import ffi, lib

_ENTRY_FAILURE: Final = 1 << 31
_NAMES: Final = {int(reason): reason.name for reason in (*ExitReason, *Operation)}
DEADLINE: Final[int] = lib.STOP_DEADLINE
INTERRUPTED: Final[int] = lib.STOP_INTERRUPTED
INTERNAL: Final[int] = lib.STOP_INTERNAL
VM_FAIL: Final[int] = lib.STOP_VM_FAIL
VMX_ABORT: Final[int] = lib.STOP_VMX_ABORT
TARGET: Final[int] = lib.STOP_TARGET
BREAKPOINT: Final[int] = lib.STOP_BREAKPOINT
WATCHPOINT: Final[int] = lib.STOP_WATCHPOINT
BEFORE_HANDLER: Final[int] = lib.STOP_EXIT
_STOPS: Final = {
    TARGET: "TARGET",
    BREAKPOINT: "BREAKPOINT",
    WATCHPOINT: "WATCHPOINT",
    BEFORE_HANDLER: "BEFORE_HANDLER",
    DEADLINE: "DEADLINE",
    INTERRUPTED: "INTERRUPTED",
    INTERNAL: "INTERNAL",
    VM_FAIL: "VM_FAIL",
    VMX_ABORT: "VMX_ABORT",
}


class Exit:
    """Why `Pcpu.enter` came back: a view of the C engine's exit record.

    Below 0x80 `reason` is the basic exit reason (see `ExitReason`). Under the trap technique an
    exit goes by its operation: the basic reason that an instruction has under VT-x, or an
    `Operation` from 0x80; `hardware_reason` is what the processor saw. From 0x100 it is one of the
    engine's own stops: DEADLINE, INTERRUPTED, INTERNAL; VM_FAIL when there was no entry (the
    qualification is the VM-instruction error), VMX_ABORT when there could be no exit. Addresses are
    bytes, `cycle` and `instructions` are the engine's counts at the exit. `handled` is
    for an observer that wants no handler to run. The one that `enter` returns is overwritten by the
    next entry; `copy()` keeps it.
    """

    __slots__ = ("_record", "handled", "reason")

    def __init__(self, record: Any) -> None:
        """View a C `struct exit_record *`."""
        self._record = record
        self.reason: int = record.operation or record.reason & 0xFFFF
        self.handled = False

    def copy(self) -> "Exit":
        """Return one that later entries leave alone."""
        record = ffi.new("struct exit_record *")
        record[0] = self._record[0]
        return Exit(record)

    def save(self) -> bytes:
        """Return the record as bytes."""
        return bytes(ffi.buffer(self._record))

    def words(self) -> tuple[int, ...]:
        """Return the record as its words, in the order of cext/native.cdef.h."""
        return tuple(memoryview(self.save()).cast("Q"))

    @classmethod
    def load(cls, image: bytes) -> "Exit":
        """Return what `save` wrote down."""
        record = ffi.new("struct exit_record *")
        ffi.memmove(record, image, len(image))
        return cls(record)

    def show_access(self, linear: int, physical: int, qualification: int) -> None:
        """Put in what software found out of an access that the hardware told as an exception."""
        record = self._record
        record.guest_linear, record.guest_physical = linear, physical
        record.qualification = qualification

    @property
    def is_stop(self) -> bool:
        """Whether this is the engine's own stop and no exit of the architecture."""
        return self.reason in _STOPS

    @property
    def name(self) -> str:
        """The kernel's name of the reason."""
        return _NAMES.get(self.reason) or _STOPS.get(self.reason) or f"REASON_{self.reason}"

    @property
    def hardware_reason(self) -> int:
        """The basic exit reason: EXCEPTION_NMI for what was trapped and emulated."""
        return self._record.reason & 0xFFFF

    @property
    def hardware_name(self) -> str:
        """What the processor saw, by the kernel's name."""
        return _NAMES.get(self.hardware_reason) or self.name

    @property
    def is_entry_failure(self) -> bool:
        """Whether no guest instruction ran because the entry failed."""
        return bool(self._record.reason & _ENTRY_FAILURE)

    @property
    def qualification(self) -> int:
        """The exit qualification; `hwmodel.arch.qualification` names its bits."""
        return self._record.qualification

    @property
    def instruction_length(self) -> int:
        """Bytes of the instruction that exited."""
        return self._record.instruction_length

    @property
    def guest_linear(self) -> int:
        """The guest-linear address, where the reason has one."""
        return self._record.guest_linear

    @property
    def guest_physical(self) -> int:
        """The guest-physical address, where the reason has one."""
        return self._record.guest_physical

    @property
    def interruption_info(self) -> int:
        """VM-exit interruption information."""
        return self._record.interruption_info

    @property
    def interruption_error(self) -> int:
        """VM-exit interruption error code."""
        return self._record.interruption_error

    @property
    def idt_vectoring_info(self) -> int:
        """The event that was being delivered when the exit came."""
        return self._record.idt_vectoring_info

    @property
    def idt_vectoring_error(self) -> int:
        """Its error code."""
        return self._record.idt_vectoring_error

    @property
    def instruction_info(self) -> int:
        """VM-exit instruction information."""
        return self._record.instruction_info

    @property
    def rip(self) -> int:
        """RIP as saved."""
        return self._record.rip

    @property
    def instructions(self) -> int:
        """Guest instructions retired on this pCPU before the exit."""
        return self._record.instructions

    @property
    def cycle(self) -> int:
        """The clock, in cycles."""
        return self._record.cycles

    @property
    def sequence(self) -> int:
        """Number of the exit on this pCPU, from 1."""
        return self._record.sequence

    def __repr__(self) -> str:
        text = f"{self.name} at {self.rip:#x} qualification={self.qualification:#x}"
        if self.reason == ExitReason.EPT_VIOLATION:
            text += f" gpa={self.guest_physical:#x}"
        return f"<{text} cycle={self.cycle}>"
