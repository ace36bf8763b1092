"""The PC's 8254 interval timer and port 0x61 beside it.

Offsets: 0, 1, 2 the counters, 3 the control word, 4 "port B": the gate of counter 2 (bit 0), the
speaker's enable (bit 1), the refresh toggle (bit 4) and counter 2's output (bit 5).
Counter 0's output is interrupt line 0. Its falling edge in mode 2 lasts one tick and is not an
event of its own: the line drops and rises when the period ends.
"""

from vmm.devices.device import Clock, IrqLine, State
from vmm.devices.i8254 import Counter
from vmm.devices.ticks import Oscillator

PIT_HZ = 1_193_182
"""14.31818 MHz / 12."""
REFRESH_TICKS = 18
"""The memory refresh request toggles every 15 us or so."""
NEVER = -1


class Pit:
    """Three counters; counter 0 drives an interrupt line, counter 2 the speaker."""

    def __init__(self, clock: Clock, irq: IrqLine, name: str = "pit") -> None:
        """`irq` follows OUT of counter 0."""
        self.name = name
        self._oscillator = Oscillator(clock, PIT_HZ)
        self._irq = irq
        self.counters = [Counter(), Counter(), Counter()]
        self._port_b = 0
        self._rise = NEVER  # tick of counter 0's next rising edge
        self._event = NEVER  # tick of its next edge that is worth an event
        self.counters[2].set_gate(False, 0)

    def read(self, offset: int, _size: int) -> int:
        """Return a counter's byte or port B; the control word cannot be read."""
        now = self._sync()
        if offset == 4:
            return self._read_port_b(now)
        return self.counters[offset].read(now) if offset < 3 else 0xFF

    def write(self, offset: int, _size: int, value: int) -> None:
        """Write a count, a control word or port B."""
        now, value = self._sync(), value & 0xFF
        if offset == 4:
            self._port_b = value & 0x0F
            self.counters[2].set_gate(bool(value & 1), now)
        elif offset == 3:
            self._control(value, now)
        elif offset < 3:
            self.counters[offset].write(value, now)
        self._drive(now)

    def speaker(self) -> bool:
        """Return the level at the speaker: counter 2's output behind the enable bit."""
        return bool(self._port_b & 2) and self.counters[2].output(self._oscillator.now())

    def next_event(self) -> int | None:
        """Return the cycle of counter 0's next edge."""
        return None if self._event == NEVER else self._oscillator.cycle(self._event)

    def fire(self) -> None:
        """Drive the interrupt line."""
        self._sync()

    def save(self) -> State:
        """The counters, port B and the edges ahead."""
        counters = {f"counter{i}": counter.save() for i, counter in enumerate(self.counters)}
        line = [self._port_b, self._rise, self._event]
        return {"version": 1, "line": line, **counters}

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        for i, counter in enumerate(self.counters):
            saved = state[f"counter{i}"]
            assert isinstance(saved, list)
            counter.restore(saved)
        line = state["line"]
        assert isinstance(line, list)
        self._port_b, self._rise, self._event = line

    def _control(self, value: int, now: int) -> None:
        if value >> 6 != 3:
            self.counters[value >> 6].control(value & 0x3F, now)
            return
        for i, counter in enumerate(self.counters):  # read-back command
            if value >> i & 2:
                if not value & 0x20:
                    counter.latch_count(now)
                if not value & 0x10:
                    counter.latch_status(now)

    def _read_port_b(self, now: int) -> int:
        refresh = now // REFRESH_TICKS & 1
        return self._port_b | refresh << 4 | self.counters[2].output(now) << 5

    def _sync(self) -> int:
        """Catch up with the clock: deliver an edge that has passed; return the tick."""
        now = self._oscillator.now()
        if self._event != NEVER and now >= self._event:
            if self._rise != NEVER and now >= self._rise:
                self._irq(False)
                self._irq(True)
            self._drive(now)
        return now

    def _drive(self, now: int) -> None:
        """Put counter 0's output on the line and look for its next edges."""
        counter = self.counters[0]
        self._irq(counter.output(now))
        rise = counter.next_rise(now)
        fall = None if counter.mode == 2 else counter.next_fall(now)
        self._rise = NEVER if rise is None else rise
        self._event = min((t for t in (rise, fall) if t is not None), default=NEVER)
