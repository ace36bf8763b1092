"""Bits that virtio devices share (virtio 1.2, "Device Status Field", "Reserved Feature Bits")."""

from enum import IntEnum, IntFlag


class Status(IntFlag):
    """The device status register."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    NEEDS_RESET = 64
    FAILED = 128


class Feature(IntEnum):
    """Numbers of the feature bits that belong to queues and transports; 0..23 are the device's."""

    INDIRECT_DESC = 28
    EVENT_IDX = 29
    VERSION_1 = 32
    RING_PACKED = 34
    RING_RESET = 40


def bits(*numbers: int) -> int:
    """Return a mask with the bits of these numbers set."""
    mask = 0
    for number in numbers:
        mask |= 1 << number
    return mask
