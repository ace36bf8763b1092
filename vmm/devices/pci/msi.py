"""An upstream write to 0xfeexxxxx is an interrupt message (Intel SDM, "Message Signalled
Interrupts": "Message Address Register Format", "Message Data Register Format").
"""

from vmm.devices.lapic_bus import EVERYONE, DeliveryMode, Message

WINDOW = 0xFEE
REDIRECTION_HINT, LOGICAL = 1 << 3, 1 << 2
LEVEL = 1 << 15


def decode(address: int, data: int) -> Message | None:
    """Return the message of a write of `data` to `address`; None if that is no interrupt.

    Destinations beyond 8 bits: bits 11..5 of the address are bits 14..8 (KVM's CPUID feature
    "MSI extended destination ID"), bits 63..40 are bits 31..8 (KVM API, "KVM_CAP_X2APIC_API").
    """
    if address >> 20 & 0xF_FFFF != WINDOW:
        return None
    low = address >> 12 & 0xFF
    high = address >> 5 & 0x7F | address >> 40
    destination = EVERYONE if low == 0xFF and not high else high << 8 | low
    mode = DeliveryMode(data >> 8 & 7)
    if mode is DeliveryMode.FIXED and address & REDIRECTION_HINT:
        mode = DeliveryMode.LOWEST_PRIORITY
    return Message(
        mode,
        data & 0xFF,
        destination & EVERYONE,
        logical=bool(address & LOGICAL),
        level_triggered=bool(data & LEVEL),
    )
