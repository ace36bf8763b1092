"""Writing the interrupt command register (Intel SDM, "Issuing Interprocessor Interrupts")."""

from enum import IntEnum

from vmm.devices.lapic_bus import EVERYONE, ApicBus, DeliveryMode, Message, Receiver

LOGICAL, LEVEL_ASSERT, LEVEL_TRIGGER = 1 << 11, 1 << 14, 1 << 15


class Shorthand(IntEnum):
    """ICR bits 19..18."""

    NONE = 0
    SELF = 1
    ALL = 2
    OTHERS = 3


def is_illegal(icr: int) -> bool:
    """True if the command would send a vector below 16."""
    fixed = DeliveryMode(icr >> 8 & 7) in (DeliveryMode.FIXED, DeliveryMode.LOWEST_PRIORITY)
    return fixed and icr & 0xFF < 16


def send(bus: ApicBus, sender: Receiver, icr: int, destination: int) -> None:
    """Send what the low word of ICR commands; `destination` is 32 bits (EVERYONE broadcasts).

    The trigger bits count for INIT only: its de-assert form is ignored, as it is since the
    Pentium 4, and every other IPI is edge-triggered.
    """
    mode = DeliveryMode(icr >> 8 & 7)
    if mode is DeliveryMode.INIT and icr & LEVEL_TRIGGER and not icr & LEVEL_ASSERT:
        return
    message = Message(mode, icr & 0xFF, destination, logical=bool(icr & LOGICAL))
    shorthand = Shorthand(icr >> 18 & 3)
    if shorthand is Shorthand.NONE:
        bus.deliver(message)
    elif shorthand is Shorthand.SELF:
        bus.deliver_to([sender], message)
    else:
        everyone = [r for r in bus.receivers if r.is_addressed(EVERYONE, logical=False)]
        with_self = shorthand is Shorthand.ALL
        bus.deliver_to([r for r in everyone if with_self or r is not sender], message)
