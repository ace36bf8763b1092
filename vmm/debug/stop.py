"""Where to stop, as asked for; and that it stopped, and why."""

from dataclasses import dataclass
from enum import StrEnum

from hwmodel.cpu.stops import Watch
from hwmodel.vmx.exit import Exit
from vmm.debug.condition import Condition
from vmm.debug.moment import Moment
from vmm.outcome import Result


class StopKind(StrEnum):
    """Why a session is stopped."""

    GOAL = "goal"
    """What was asked for is reached: a step, a moment."""
    BREAKPOINT = "breakpoint"
    WATCHPOINT = "watchpoint"
    EXIT = "exit"
    """At an exit, before its handler or behind it."""
    PAUSED = "paused"
    BEGIN = "begin"
    """There is no earlier moment to go back to."""
    ENDED = "ended"
    """The run is over."""


@dataclass(slots=True)
class CodeStop:
    """Before the instruction at a linear or guest-physical address."""

    number: int
    address: int
    physical: bool = False
    enabled: bool = True

    def __str__(self) -> str:
        return f"break {'physical ' if self.physical else ''}{self.address:#x}"


@dataclass(slots=True)
class DataStop:
    """Behind an access to `size` bytes at a linear or guest-physical address.

    By physical address it also hears of devices and of what software and the processor itself
    write.
    """

    number: int
    address: int
    size: int
    kinds: Watch = Watch.WRITE
    physical: bool = False
    enabled: bool = True

    def __str__(self) -> str:
        words = {Watch.WRITE: "watch", Watch.READ: "rwatch", Watch.ACCESS: "awatch"}
        where = "physical " if self.physical else ""
        return f"{words[self.kinds]} {where}{self.address:#x} {self.size}"


@dataclass(slots=True)
class ExitStop:
    """At exits that meet a condition, before the handler or behind it."""

    number: int
    condition: Condition
    after: bool = False
    enabled: bool = True
    count: int = 0
    """How often it was met since it was made, in either direction."""

    def __str__(self) -> str:
        return f"exit-break {'after ' if self.after else ''}{self.condition.text}"


AnyStop = CodeStop | DataStop | ExitStop


@dataclass(frozen=True, slots=True)
class Stop:
    """A session has stopped at `moment`; `vcpu` is the one that ran.

    `number` is the breakpoint's, `address` and `size` what was touched (as the watchpoint's address
    is: linear or guest-physical) and `writes` how; `vmexit` the exit; `result` the run's.
    """

    kind: StopKind
    moment: Moment
    vcpu: int
    number: int | None = None
    address: int | None = None
    size: int = 0
    writes: bool = False
    vmexit: Exit | None = None
    result: Result | None = None
