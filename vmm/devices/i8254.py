"""One counter of an 8254 interval timer (Intel 8254 data sheet), computed instead of counted.

Time is the number of oscillator ticks. `origin` is the tick at which the counting element was last
loaded with `reload`; count and output at any later tick follow from the mode and from how many
ticks have passed. A counter whose gate is low is `held`: it stands where it was.
"""

RETRIGGERABLE = (1, 5)
PERIODIC = (2, 3)

_SAVED = (
    *("mode", "access", "bcd", "reload", "origin", "running", "held", "held_at", "gate"),
    *("next_reload", "switch_at", "write_low", "write_high_next", "read_high_next"),
    *(
        "latched",
        "latch_valid",
        "status_latch",
        "status_valid",
        "null_count",
        "armed",
        "retriggered",
    ),
)


class Counter:
    """Mode, count register, gate and read-back latches of one channel."""

    def __init__(self) -> None:
        """A counter as it is after power-on: undefined; here mode 0, not yet counting."""
        self.mode = 0
        self.access = 3  # 1 low byte, 2 high byte, 3 low then high
        self.bcd = False
        self.reload = 0x10000
        self.origin = 0
        self.running = False  # has been loaded since the control word
        self.held = False
        self.held_at = 0
        self.gate = True
        self.next_reload = 0  # modes 2 and 3: count that takes over at the end of the period,
        self.switch_at = 0  # which is at this tick
        self.write_low = 0
        self.write_high_next = self.read_high_next = False
        self.latched = 0
        self.latch_valid = False
        self.status_latch = 0
        self.status_valid = False
        self.null_count = True
        self.armed = False  # modes 1 and 5: a count was written, a trigger may start it
        self.retriggered = False  # mode 1: OUT was already low when the trigger came

    def output(self, now: int) -> bool:
        """Return the level of OUT at tick `now`."""
        self._adopt(now)
        if not self.running:
            return self.mode != 0
        if self.held and self.mode in PERIODIC:
            return True  # gate low forces OUT high
        elapsed = self._elapsed(now)
        if self.mode == 0:
            return elapsed >= self.reload
        if self.mode == 1:
            return not self.retriggered if elapsed < 0 else elapsed >= self.reload
        if self.mode in PERIODIC:
            return elapsed < 0 or elapsed % self.reload < self._high_ticks()
        return elapsed != self.reload

    def next_rise(self, now: int) -> int | None:
        """Return the first tick after `now` at which OUT goes from low to high, or None."""
        self._adopt(now)
        if not self.running or self.held:
            return None
        elapsed = now - self.origin
        if self.mode in PERIODIC:
            return self.origin + self.reload * (max(elapsed, 0) // self.reload + 1)
        mark = self.reload + (self.mode >= 4)
        return self.origin + mark if mark > elapsed else None

    def next_fall(self, now: int) -> int | None:
        """Return the first tick after `now` at which OUT goes from high to low, or None."""
        self._adopt(now)
        if not self.running or self.held or self.mode == 0:
            return None
        elapsed = now - self.origin
        if self.mode in PERIODIC:
            whole = max(elapsed, 0) // self.reload * self.reload + self._high_ticks()
            return self.origin + (whole if whole > elapsed else whole + self.reload)
        mark = 0 if self.mode == 1 else self.reload
        return self.origin + mark if mark > elapsed else None

    def set_gate(self, level: bool, now: int) -> None:
        """Drive the gate: pause, force OUT, or trigger, as the mode says."""
        if level == self.gate:
            return
        self._adopt(now)
        elapsed = self._elapsed(now)
        self.gate = level
        if self.mode in RETRIGGERABLE:
            if level and self.armed:
                self.retriggered = self.mode == 1 and not self.output(now)
                self._load(now)
        elif not level:
            self.held, self.held_at = True, elapsed
        elif self.mode in PERIODIC:
            self.held = False
            if self.running:
                self._load(now)
        else:
            self.held, self.origin = False, now - self.held_at

    def control(self, value: int, now: int) -> None:
        """Take a control word (bits 5..0); access 0 is the counter latch command."""
        if not value >> 4 & 3:
            self.latch_count(now)
            return
        self.access = value >> 4 & 3
        self.mode = value >> 1 & 7
        if self.mode > 5:
            self.mode -= 4  # modes 6 and 7 are 2 and 3
        self.bcd = bool(value & 1)
        self.running = self.armed = self.retriggered = False
        self.next_reload = 0
        self.null_count = True
        self.held = not self.gate and self.mode not in RETRIGGERABLE
        self.held_at = 0
        self.write_high_next = self.read_high_next = False
        self.latch_valid = self.status_valid = False

    def write(self, value: int, now: int) -> None:
        """Write one byte of the count; the counter takes it when it is complete."""
        if self.access == 1:
            self._set_count(value, now)
        elif self.access == 2:
            self._set_count(value << 8, now)
        elif not self.write_high_next:
            self.write_low, self.write_high_next = value, True
            if self.mode == 0:
                self.running = False  # the first byte stops the counting
        else:
            self.write_high_next = False
            self._set_count(value << 8 | self.write_low, now)

    def read(self, now: int) -> int:
        """Read one byte: of the latched status, of the latched count, or of the running count."""
        if self.status_valid:
            self.status_valid = False
            return self.status_latch
        count = self.latched if self.latch_valid else self.count(now)
        high = self.access == 2 or (self.access == 3 and self.read_high_next)
        if self.access == 3:
            self.read_high_next = not self.read_high_next
        if self.access != 3 or high:
            self.latch_valid = False
        return count >> 8 if high else count & 0xFF

    def latch_count(self, now: int) -> None:
        """Hold the count until it is read; a second latch before that is ignored."""
        if not self.latch_valid:
            self.latched, self.latch_valid = self.count(now), True

    def latch_status(self, now: int) -> None:
        """Hold OUT, null count and the mode until they are read."""
        if self.status_valid:
            return
        pending = self.null_count or bool(self.next_reload) or now < self.origin
        self.status_latch = (
            self.output(now) << 7 | pending << 6 | self.access << 4 | self.mode << 1 | self.bcd
        )
        self.status_valid = True

    def count(self, now: int) -> int:
        """Return the counting element, 16 bits, as a guest reads it."""
        self._adopt(now)
        span = 10_000 if self.bcd else 0x10000
        elapsed = max(self._elapsed(now), 0) if self.running else 0
        if self.mode == 2:
            value = self.reload - elapsed % self.reload
        elif self.mode == 3:
            value = self._square_count(elapsed % self.reload)
        else:
            value = self.reload - elapsed
        value %= span
        return int(f"{value:04}", 16) if self.bcd else value

    def save(self) -> list[int]:
        """All fields, in the order of _SAVED."""
        return [int(getattr(self, name)) for name in _SAVED]

    def restore(self, values: list[int]) -> None:
        """Take over what save() returned."""
        for name, value in zip(_SAVED, values, strict=True):
            setattr(self, name, type(getattr(self, name))(value))

    def _set_count(self, value: int, now: int) -> None:
        """A complete count: loaded at the next tick, at the next period, or by a trigger."""
        if self.bcd:
            value = sum((value >> 4 * i & 15) * 10**i for i in range(4))
        count = value or (10_000 if self.bcd else 0x10000)
        if self.mode in PERIODIC:
            count = max(count, 2)  # a count of 1 is illegal in these modes
        self.null_count = True
        self._adopt(now)
        if self.mode in RETRIGGERABLE:
            self.next_reload, self.armed = count, True
        elif self.mode in PERIODIC and self.running:
            self._schedule(count, now)
        else:
            self.reload = count
            self._load(now)

    def _load(self, now: int) -> None:
        """The counting element takes the count at the next tick."""
        if self.next_reload:
            self.reload, self.next_reload = self.next_reload, 0
        self.origin = now + 1
        self.held_at = 0
        self.running, self.null_count = True, False

    def _adopt(self, now: int) -> None:
        """Modes 2 and 3: a new count takes over where the period (half-period) before it ended."""
        if not self.next_reload or now < self.switch_at or self.held:
            return
        if self.mode not in PERIODIC or not self.running:
            return
        ends_high_half = (self.switch_at - self.origin) % self.reload != 0
        self.reload, self.next_reload, self.null_count = self.next_reload, 0, False
        self.origin = self.switch_at - (self._high_ticks() if ends_high_half else 0)

    def _schedule(self, count: int, now: int) -> None:
        """Modes 2 and 3 while counting: let `count` wait for the end of this (half-)period."""
        if now < self.origin:
            self.reload = count  # not loaded yet: the newer count is what gets loaded
            return
        if not self.next_reload:
            phase = (now - self.origin) % self.reload
            high = self._high_ticks()
            self.switch_at = (
                now - phase + (high if self.mode == 3 and phase < high else self.reload)
            )
        self.next_reload = count

    def _elapsed(self, now: int) -> int:
        return self.held_at if self.held else now - self.origin

    def _high_ticks(self) -> int:
        """Ticks of a period during which OUT is high."""
        return self.reload - 1 if self.mode == 2 else (self.reload + 1) // 2

    def _square_count(self, phase: int) -> int:
        """Mode 3 counts down by two in each half; an odd count starts one lower."""
        high = self._high_ticks()
        even = self.reload & ~1
        return even - 2 * (phase if phase < high else phase - high)
