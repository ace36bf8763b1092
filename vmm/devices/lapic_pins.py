"""The wires between a local APIC, its processor, and the 8259A behind LINT0."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class ExternalController(Protocol):
    """The 8259A behind INTR."""

    def pending(self) -> bool:
        """True while INTR is asserted."""

    def acknowledge(self) -> int:
        """Run the INTA cycle; return the vector."""


@dataclass(frozen=True, slots=True)
class CpuPins:
    """What a local APIC asks of its processor beside fixed interrupts."""

    nmi: Callable[[], None]
    init: Callable[[], None]
    sipi: Callable[[int], None]
    """The vector is the page number at which the processor starts."""
    wake: Callable[[], None] = lambda: None
    """An interrupt was requested: a halted processor may go on."""
