"""PV time: vcpu_time_info, the wall clock, and the timers that raise VIRQ_TIMER.

System time is nanoseconds since power-on, as the machine's clock has them (public/xen.h,
public/vcpu.h); a guest computes it from its TSC, which is declared stable.
"""

from collections.abc import Callable
from struct import Struct
from typing import Any, Final

from hwmodel.timing.clock import Clock
from vmm.pv.dialect import State
from vmm.pv.pvclock import TSC_STABLE, Scale
from vmm.pv.xen.abi import PAGE
from vmm.pv.xen.shared import Shared

INFO_TIME: Final = 32  # in struct vcpu_info
WALL: Final = 3072  # in struct shared_info
NS: Final = 1_000_000_000
LEAST_PERIOD: Final = 1_000_000  # ns, as in Xen
_TIME: Final = Struct("<IIQQIbB2x")
_WALL: Final = Struct("<III")
ALL_ONES: Final = (1 << 64) - 1


class Timers:
    """The timers of a domain's vCPUs; a device to the board."""

    name = "xen-timers"

    def __init__(
        self, clock: Clock, vcpus: int, expired: Callable[[int], None],
        timed_out: Callable[[int], None], reschedule: Callable[[], None],
    ) -> None:  # fmt: skip
        """None runs. `expired` and `timed_out` (of a poll) are told the vCPU."""
        self._clock: Final = clock
        self._expired: Final = expired
        self._timed_out: Final = timed_out
        self._reschedule: Final = reschedule
        self.single: list[int | None] = [None] * vcpus
        self.period = [0] * vcpus
        self.next_period: list[int | None] = [None] * vcpus
        self.poll: list[int | None] = [None] * vcpus

    def cycle(self, ns: int) -> int:
        """Return the first cycle at which system time is `ns` or later."""
        return self._clock.cycle_of_tick(NS, ns)

    def set_single(self, vcpu: int, ns: int | None) -> None:
        """Let VIRQ_TIMER come once at a system time; None: not at all."""
        self.single[vcpu] = None if ns is None else self.cycle(ns)
        self._reschedule()

    def set_poll(self, vcpu: int, ns: int | None) -> None:
        """Let a poll end at a system time."""
        self.poll[vcpu] = None if ns is None else self.cycle(ns)
        self._reschedule()

    def set_periodic(self, vcpu: int, period: int) -> None:
        """Let VIRQ_TIMER come every `period` ns; 0: no more."""
        self.period[vcpu] = period
        self.next_period[vcpu] = self.cycle(self._clock.ns() + period) if period else None
        self._reschedule()

    def is_past(self, ns: int) -> bool:
        """Whether a system time is over."""
        return ns <= self._clock.ns()

    # ---- a device ----

    def next_event(self) -> int | None:
        """Return the cycle of the first timer."""
        times = [t for t in (*self.single, *self.next_period, *self.poll) if t is not None]
        return min(times, default=None)

    def fire(self) -> None:
        """Raise what is due."""
        now = self._clock.now
        for vcpu, at in enumerate(self.single):
            if at is not None and at <= now:
                self.single[vcpu] = None
                self._expired(vcpu)
        for vcpu, at in enumerate(self.next_period):
            if at is not None and at <= now:
                self.next_period[vcpu] = self.cycle(self._clock.ns() + self.period[vcpu])
                self._expired(vcpu)
        for vcpu, at in enumerate(self.poll):
            if at is not None and at <= now:
                self.poll[vcpu] = None
                self._timed_out(vcpu)

    def read(self, _offset: int, size: int) -> int:
        """No register."""
        return ALL_ONES >> 64 - 8 * size

    def write(self, _offset: int, _size: int, _value: int) -> None:
        """No register."""

    def save(self) -> State:
        """Every timer."""
        return {
            "version": 1, "single": list(self.single), "period": list(self.period),
            "next": list(self.next_period), "poll": list(self.poll),
        }  # fmt: skip

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        found: Any = state
        self.single, self.period = list(found["single"]), list(found["period"])
        self.next_period, self.poll = list(found["next"]), list(found["poll"])


class SystemTime:
    """What the guest reads the time from."""

    def __init__(self, clock: Clock, shared: Shared, shared_info: int, epoch: int) -> None:
        """`epoch` is the date at power-on, in seconds since 1970."""
        self._clock: Final = clock
        self._shared: Final = shared
        self._wall: Final = shared_info * PAGE + WALL
        self._epoch: Final = epoch

    def image(self, offset: int = 0) -> bytes:
        """Return struct vcpu_time_info as of now, its version apart; `offset` is the guest's TSC
        minus the machine's.
        """
        hz = self._clock.tsc_hz or self._clock.frequency
        scale = Scale.of(hz)
        tsc = self._clock.tsc() + offset & ALL_ONES
        data = (2, 0, tsc, self._clock.ns(), scale.mul, scale.shift, TSC_STABLE)
        return _TIME.pack(*data)

    def write(self, info: int) -> None:
        """Fill in the time of a vcpu_info at a machine address."""
        self.update(info + INFO_TIME)

    def update(self, at: int, offset: int = 0) -> None:
        """Write struct vcpu_time_info at a machine address, its version odd meanwhile."""
        version = self._shared.read(at, 4) & ~1
        self._shared.write(at, 4, version + 1 & 0xFFFF_FFFF)
        self._shared.store(at + 4, self.image(offset)[4:])
        self._shared.write(at, 4, version + 2 & 0xFFFF_FFFF)

    def write_wall_clock(self) -> None:
        """Say what date it was at system time 0."""
        self._shared.store(self._wall, _WALL.pack(2, self._epoch & 0xFFFF_FFFF, 0))
