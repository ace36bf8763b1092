"""The shared time page of Xen and KVM: time since power-on from the TSC, without an exit.

Layout and formula: Linux arch/x86/include/asm/pvclock-abi.h and pvclock.h, Xen public/xen.h
(struct vcpu_time_info). A reader computes

    ns = system_time + (((tsc - tsc_timestamp) << shift) * mul >> 32)

with a shift to the right where `shift` is negative, between two readings of the same even version.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Final

from vmm.pv.shared import SharedArea

TIME_BYTES: Final = 32
WALL_BYTES: Final = 12
VERSION: Final = 0  # offset in both structures
TSC_STABLE: Final = 1 << 0
GUEST_STOPPED: Final = 1 << 1
COUNTS_FROM_ZERO: Final = 1 << 2
_TIME: Final = Struct("<QQIbBH")  # tsc_timestamp, system_time, mul, shift, flags, pad: from 8 on
_WALL: Final = Struct("<II")  # sec, nsec: from 4 on
_NS: Final = 1_000_000_000
_MASK64: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Scale:
    """TSC ticks to nanoseconds: `mul` is 32 bits wide with its top bit set, `shift` is signed."""

    mul: int
    shift: int

    @classmethod
    def of(cls, hz: int) -> "Scale":
        """Return the finest scale for a counter of `hz`, rounded down: time never runs ahead."""
        shift, mul = 0, (_NS << 32) // hz
        while mul >= 1 << 32:
            shift, mul = shift + 1, (_NS << 32) // (hz << shift + 1)
        while mul < 1 << 31:
            shift, mul = shift - 1, (_NS << 32 - shift + 1) // hz
        return cls(mul, shift)

    def ns(self, ticks: int) -> int:
        """Return what a guest computes for `ticks`."""
        shifted = ticks << self.shift if self.shift >= 0 else ticks >> -self.shift
        return shifted * self.mul >> 32


def write_time(area: SharedArea, scale: Scale, tsc: int, ns: int, flags: int) -> None:
    """Say in a time page that system time was `ns` when the guest's TSC read `tsc`."""
    data = _TIME.pack(tsc & _MASK64, ns & _MASK64, scale.mul, scale.shift, flags, 0)
    area.update(VERSION, 8, data)


def write_wall_clock(area: SharedArea, epoch: int, ns: int) -> None:
    """Say what date it was when system time was zero: `epoch` seconds and `ns` since 1970."""
    area.update(VERSION, 4, _WALL.pack(epoch + ns // _NS & 0xFFFF_FFFF, ns % _NS))
