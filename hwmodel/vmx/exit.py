"""An exit is a value: a plain view of the C engine's exit record."""

import struct
from typing import Any, Final

from hwmodel.arch.exits import ExitReason
from hwmodel.cpu.unicorn import ffi, lib

_RECORD: Final = struct.Struct("=14Q")
_ENTRY_FAILURE: Final = 1 << 31
_NAMES: Final = {int(reason): reason.name for reason in ExitReason}
_STOPS: Final = {
    lib.STOP_DEADLINE: "DEADLINE",
    lib.STOP_INTERRUPTED: "INTERRUPTED",
    lib.STOP_INTERNAL: "INTERNAL",
}


class Exit:
    """Why `Pcpu.enter` came back.

    Below 0x100 `reason` is the basic exit reason (see `ExitReason`); above, one of the engine's own
    stops: DEADLINE, INTERRUPTED, INTERNAL. Addresses are bytes, `cycle` and `instructions` are the
    engine's counts at the exit. `handled` is for an observer that wants no handler to run.
    """

    __slots__ = ("_record", "handled", "reason")

    def __init__(self, record: Any) -> None:
        """Copy the C record: one call, no field is decoded before it is asked for."""
        self._record = _RECORD.unpack_from(ffi.buffer(record))
        self.reason: int = self._record[0] & 0xFFFF
        self.handled = False

    @property
    def name(self) -> str:
        """The kernel's name of the reason."""
        return _NAMES.get(self.reason) or _STOPS.get(self.reason) or f"REASON_{self.reason}"

    @property
    def is_entry_failure(self) -> bool:
        """Whether no guest instruction ran because the entry failed."""
        return bool(self._record[0] & _ENTRY_FAILURE)

    @property
    def qualification(self) -> int:
        """The exit qualification; `hwmodel.arch.qualification` names its bits."""
        return self._record[1]

    @property
    def instruction_length(self) -> int:
        """Bytes of the instruction that exited."""
        return self._record[2]

    @property
    def guest_linear(self) -> int:
        """The guest-linear address, where the reason has one."""
        return self._record[3]

    @property
    def guest_physical(self) -> int:
        """The guest-physical address, where the reason has one."""
        return self._record[4]

    @property
    def interruption_info(self) -> int:
        """VM-exit interruption information."""
        return self._record[5]

    @property
    def interruption_error(self) -> int:
        """VM-exit interruption error code."""
        return self._record[6]

    @property
    def idt_vectoring_info(self) -> int:
        """The event that was being delivered when the exit came."""
        return self._record[7]

    @property
    def idt_vectoring_error(self) -> int:
        """Its error code."""
        return self._record[8]

    @property
    def instruction_info(self) -> int:
        """VM-exit instruction information."""
        return self._record[9]

    @property
    def rip(self) -> int:
        """RIP as saved."""
        return self._record[10]

    @property
    def instructions(self) -> int:
        """Guest instructions retired on this pCPU before the exit."""
        return self._record[11]

    @property
    def cycle(self) -> int:
        """The clock, in cycles."""
        return self._record[12]

    @property
    def sequence(self) -> int:
        """Number of the exit on this pCPU, from 1."""
        return self._record[13]

    def __repr__(self) -> str:
        text = f"{self.name} at {self.rip:#x} qualification={self.qualification:#x}"
        if self.reason == ExitReason.EPT_VIOLATION:
            text += f" gpa={self.guest_physical:#x}"
        return f"<{text} cycle={self.cycle}>"
