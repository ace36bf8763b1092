"""What became of one emulated instruction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from vmm.exits.emulator.machine import Machine


class Status(Enum):
    """How an emulation ended."""

    DONE = auto()
    """Executed; RIP is at the next instruction."""
    DONE_PARTIAL = auto()
    """A REP instruction stopped between iterations; RIP unmoved, counters advanced."""
    FAULT = auto()
    """The guest earned an exception; nothing changed but completed REP iterations."""
    UNSUPPORTED = auto()
    """Not an instruction this emulator knows; nothing changed."""


@dataclass(frozen=True, slots=True)
class Emulated:
    """Status, with the exception if FAULT, with text and bytes if UNSUPPORTED."""

    status: Status
    vector: int = 0
    error_code: int | None = None
    address: int | None = None
    text: str = ""
    code: bytes = b""


DONE = Emulated(Status.DONE)
PARTIAL = Emulated(Status.DONE_PARTIAL)

Plan = Callable[[Machine, int], Emulated]
"""One compiled instruction: (machine, bound on REP iterations) -> outcome; raises GuestFault."""

Execute = Callable[[Machine], None]
"""The effect of an instruction without its move of RIP; raises GuestFault before any change."""
