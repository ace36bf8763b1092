"""What a handler answers, why a run ended, and what the process says about it.

A handler of an exit returns an ``Outcome``; the vCPU loop alone moves RIP. When a run ends, the
first reason wins and is kept in a ``Stop``. ``exit_status()`` is the one place that turns a stop
into the number that the process ends with:

    0              powered off, or halted for good; also a reset with --no-reboot
    (v << 1) | 1   the guest wrote v to the exit port 0xf4: always odd
    64             bad usage, image or option (raised as UsageError, never a Stop)
    66             the guest was stopped: triple fault, entry failure, unhandled exit
    68             a limit or the timeout was reached
    70             an error of our own (raised as InternalError, never a Stop)
    130            interrupted from outside, as shells number SIGINT
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum


class Outcome(Enum):
    """What the vCPU loop does after a handler."""

    SKIP = "skip"  # the instruction is done: move RIP past it
    RESUME = "resume"  # enter again at the RIP that the handler left
    HALT = "halt"  # as SKIP, then wait for an event
    YIELD = "yield"  # the turn is over; RIP stays
    STOP = "stop"  # the run ends here; the handler has recorded why


class StopReason(StrEnum):
    """Why a run ended: the words of the JSON statistics."""

    POWEROFF = "poweroff"
    DEBUG_EXIT = "debug_exit"
    HALTED = "halted"
    RESET = "reset"
    TRIPLE_FAULT = "triple_fault"
    ENTRY_FAILURE = "entry_failure"
    UNHANDLED = "unhandled"
    LIMIT = "limit"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"


_STATUS = {
    StopReason.POWEROFF: 0,
    StopReason.HALTED: 0,
    StopReason.RESET: 0,
    StopReason.TRIPLE_FAULT: 66,
    StopReason.ENTRY_FAILURE: 66,
    StopReason.UNHANDLED: 66,
    StopReason.LIMIT: 68,
    StopReason.TIMEOUT: 68,
    StopReason.INTERRUPTED: 130,
}


def exit_status(reason: StopReason, value: int = 0) -> int:
    """Return the process status, 0 to 255; ``value`` is what was written to the exit port.

    A process has eight bits of status: of a large ``value`` the low seven bits survive, and the
    result stays odd, so that it cannot be taken for one of ours.
    """
    if reason is StopReason.DEBUG_EXIT:
        return ((value << 1) | 1) & 0xFF
    return _STATUS[reason]


@dataclass(frozen=True, slots=True)
class Stop:
    """The end of a run.

    ``message`` is one line for people: where, and what to do. ``rip`` and ``mode`` are those of
    the vCPU that stopped; ``last_exits`` are the last exits as text, oldest first.
    """

    reason: StopReason
    status: int
    message: str = ""
    rip: int = 0
    mode: str = ""
    last_exits: tuple[str, ...] = ()

    @classmethod
    def because(
        cls,
        reason: StopReason,
        message: str = "",
        *,
        value: int = 0,
        rip: int = 0,
        mode: str = "",
        last_exits: tuple[str, ...] = (),
    ) -> "Stop":
        """Build a stop with the status that its reason (and exit-port ``value``) gives."""
        return cls(reason, exit_status(reason, value), message, rip, mode, last_exits)


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended, in the words of the JSON statistics; `digest` reads the VM on demand."""

    status: int
    reason: str
    message: str
    last_exits: tuple[str, ...]
    instructions: int
    cycles: int
    exits: dict[str, int]
    exit_cycles: dict[str, int]
    ledger: dict[str, int]
    digest: Callable[[], str]
    hardware_exits: dict[str, int]
    """The exits by what the processor saw: all are EXCEPTION_NMI that were trapped and emulated."""
    patched: int
    """How often instructions ran that had been replaced at translation."""
