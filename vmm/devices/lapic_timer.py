"""The local APIC's timer: one-shot, periodic, TSC-deadline (Intel SDM, "APIC Timer").

The input is the core crystal clock that CPUID leaf 0x15 tells of, divided by the divide
configuration. The count is computed from the tick at which it was started.
"""

from collections.abc import Callable
from enum import IntEnum

from vmm.devices.device import Clock
from vmm.devices.ticks import Oscillator

_SAVED = ("mode", "initial", "shift", "start", "periods", "armed", "deadline")


NEVER = 1 << 62
"""A deadline beyond this cycle is not waited for: fifty years and more."""


class TimerMode(IntEnum):
    """Bits 18..17 of the LVT timer entry."""

    ONE_SHOT = 0
    PERIODIC = 1
    TSC_DEADLINE = 2
    RESERVED = 3


class ApicTimer:
    """The counting; whether an expiry interrupts is the LVT's business."""

    def __init__(self, clock: Clock, tsc: Callable[[], int], hz: int | None = None) -> None:
        """`tsc` returns the guest's time stamp counter, which runs at the rate of the clock's.

        `hz` is the crystal's frequency, by default the clock's own.
        """
        self._clock = clock
        self._crystal = Oscillator(clock, hz or clock.frequency)
        self.tsc = tsc
        self.reset()

    def reset(self) -> None:
        """Stop; divide by two (configuration register of zero)."""
        self.mode = int(TimerMode.ONE_SHOT)
        self.initial = 0
        self.shift = 1
        self.start = 0  # tick of the crystal at which the count was `initial`
        self.periods = 0  # expiries since then
        self.armed = False
        self.deadline = 0

    def set_initial(self, value: int) -> None:
        """Write the initial count: starts counting, or stops with 0; ignored in deadline mode."""
        if self.mode == TimerMode.TSC_DEADLINE:
            return
        self.initial = value
        self.start, self.periods = self._crystal.now(), 0
        self.armed = value != 0

    def set_divide(self, value: int) -> None:
        """Write the divide configuration; a running count goes on from where it is."""
        left = self.current()
        self.shift = ((value >> 1 & 4 | value & 3) + 1) & 7
        if self.armed and self.mode != TimerMode.TSC_DEADLINE:
            self.start = self._crystal.now() - ((self.initial - left) << self.shift)
            self.periods = 0

    def set_mode(self, mode: int) -> None:
        """Change the mode: the count goes on, but to or from deadline mode disarms."""
        if mode == self.mode:
            return
        deadline_involved = TimerMode.TSC_DEADLINE in (mode, self.mode)
        if not deadline_involved and self.armed:
            left = self.current()
            self.start = self._crystal.now() - ((self.initial - left) << self.shift)
            self.periods = 0
        if deadline_involved:
            self.armed, self.deadline = False, 0
        self.mode = mode

    def set_deadline(self, value: int) -> None:
        """Write IA32_TSC_DEADLINE: arms, or disarms with 0; ignored in the other modes."""
        if self.mode == TimerMode.TSC_DEADLINE:
            self.deadline, self.armed = value, value != 0

    def current(self) -> int:
        """Return the current count."""
        if not self.armed or self.mode == TimerMode.TSC_DEADLINE:
            return 0
        ticks = (self._crystal.now() - self.start) >> self.shift
        if self.mode == TimerMode.PERIODIC:
            return self.initial - ticks % self.initial
        return max(self.initial - ticks, 0)

    def next_expiry(self) -> int | None:
        """Return the absolute cycle of the next expiry, None when not armed."""
        if not self.armed:
            return None
        if self.mode == TimerMode.TSC_DEADLINE:
            due = self._clock.cycle_of_tsc(self._clock.tsc() + self.deadline - self.tsc())
            return due if due < NEVER else None
        return self._crystal.cycle(self.start + ((self.periods + 1) * self.initial << self.shift))

    def expire(self) -> bool:
        """Work off what is due; return whether anything was (several periods count once)."""
        due = self.next_expiry()
        if due is None or due > self._clock.now:
            return False
        if self.mode == TimerMode.PERIODIC:
            self.periods = ((self._crystal.now() - self.start) >> self.shift) // self.initial
        else:
            self.armed, self.deadline = False, 0
        return True

    def save(self) -> list[int]:
        """All fields, in the order of _SAVED."""
        return [int(getattr(self, name)) for name in _SAVED]

    def restore(self, values: list[int]) -> None:
        """Take over what save() returned."""
        for name, value in zip(_SAVED, values, strict=True):
            setattr(self, name, type(getattr(self, name))(value))
