"""The wires between local APICs: who a message is for, and who takes it.

Intel SDM, "Determining IPI Destination" and "Lowest Priority Delivery Mode".
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

EVERYONE = 0xFFFF_FFFF
"""Destination of a broadcast; senders with 8-bit destinations translate their 0xff to it."""

EoiListener = Callable[[int], None]
"""Hears the vector of a level-triggered interrupt that has been serviced."""


class DeliveryMode(IntEnum):
    """Bits 10..8 of ICR, LVT and redirection entries."""

    FIXED = 0
    LOWEST_PRIORITY = 1
    SMI = 2
    RESERVED = 3
    NMI = 4
    INIT = 5
    STARTUP = 6
    EXTINT = 7


LOCAL_MODES = frozenset({DeliveryMode.FIXED, DeliveryMode.SMI, DeliveryMode.NMI, DeliveryMode.INIT})
"""What an entry of the local vector table may send."""


@dataclass(frozen=True, slots=True)
class Message:
    """One interrupt message; `destination` is 32 bits wide."""

    mode: DeliveryMode
    vector: int
    destination: int
    logical: bool = False
    level_triggered: bool = False


class Receiver(Protocol):
    """What the bus asks of a local APIC."""

    def is_addressed(self, destination: int, *, logical: bool) -> bool:
        """Tell whether a message to `destination` is for this processor."""

    def priority(self) -> int:
        """Return the processor priority (PPR), for lowest-priority arbitration."""

    def accept(self, message: Message) -> bool:
        """Take the message; False if it cannot be taken."""


class ApicBus:
    """All local APICs of a machine, and who hears of an end of interrupt."""

    def __init__(self) -> None:
        """An empty bus: local APICs attach, in the order of their processors."""
        self.receivers: list[Receiver] = []
        self.on_eoi: list[EoiListener] = []

    def attach(self, receiver: Receiver) -> None:
        """Add a local APIC."""
        self.receivers.append(receiver)

    def deliver(self, message: Message) -> bool:
        """Hand the message to everyone it addresses; return whether anybody took it."""
        return self.deliver_to(
            [
                receiver
                for receiver in self.receivers
                if receiver.is_addressed(message.destination, logical=message.logical)
            ],
            message,
        )

    def deliver_to(self, targets: list[Receiver], message: Message) -> bool:
        """Hand the message to `targets`; lowest priority picks one, on a tie the first."""
        if message.mode is DeliveryMode.LOWEST_PRIORITY:
            targets = sorted(targets, key=lambda target: target.priority())
            return any(target.accept(message) for target in targets)
        taken = [target.accept(message) for target in targets]
        return any(taken)

    def broadcast_eoi(self, vector: int) -> None:
        """Tell the I/O APICs that a level-triggered interrupt has been serviced."""
        for listener in self.on_eoi:
            listener(vector)
