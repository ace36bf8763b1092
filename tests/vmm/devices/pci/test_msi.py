"""Message address and data, as the SDM's "Message Signalled Interrupts" lays them out."""

import pytest

from vmm.devices.lapic_bus import EVERYONE, DeliveryMode, Message
from vmm.devices.pci.msi import decode


@pytest.mark.parametrize(
    ("address", "data", "message"),
    [
        (0xFEE0_3000, 0x0041, Message(DeliveryMode.FIXED, 0x41, 3)),
        (0xFEE0_3004, 0x0041, Message(DeliveryMode.FIXED, 0x41, 3, logical=True)),
        (0xFEE0_300C, 0x0041, Message(DeliveryMode.LOWEST_PRIORITY, 0x41, 3, logical=True)),
        (0xFEE0_3000, 0x0141, Message(DeliveryMode.LOWEST_PRIORITY, 0x41, 3)),
        (0xFEE0_0000, 0x0400, Message(DeliveryMode.NMI, 0, 0)),
        (0xFEE0_0000, 0xC041, Message(DeliveryMode.FIXED, 0x41, 0, level_triggered=True)),
        (0xFEEF_F000, 0x0041, Message(DeliveryMode.FIXED, 0x41, EVERYONE)),
        (0xFEE0_1020, 0x0041, Message(DeliveryMode.FIXED, 0x41, 0x101)),
        (0x100_FEE0_1000, 0x0041, Message(DeliveryMode.FIXED, 0x41, 0x101)),
    ],
)
def test_messages(address: int, data: int, message: Message) -> None:
    assert decode(address, data) == message


@pytest.mark.parametrize("address", [0xFED0_0000, 0x1_FEE0_0000, 0x1000])
def test_a_write_elsewhere_is_no_interrupt(address: int) -> None:
    assert decode(address, 0x41) is None
