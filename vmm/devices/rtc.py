"""The PC's real-time clock: a Motorola MC146818 and the CMOS memory around it.

Offsets: 0 the index port (bit 7 masks NMI), 1 the data port. Time of day is a count of seconds that
follows the virtual clock from a fixed date, and is turned into registers when it is read; while SET
holds the updates, or the divider is held in reset, the registers stand still. Flags are raised when
somebody looks or an enabled interrupt comes due: the chip has no event that nobody would notice.
"""

from vmm.devices.calendar_time import DAY, Moment, moment, weekday
from vmm.devices.device import Clock, IrqLine, State
from vmm.devices.rtc_memory import describe_memory
from vmm.devices.saved import restore_fields, save_fields
from vmm.devices.ticks import Oscillator

DEFAULT_EPOCH = 1_767_225_600
"""2026-01-01 00:00:00 UTC: what a machine shows when nobody says otherwise."""
CRYSTAL_HZ = 32_768
UPDATE_TICKS = 73
"""UIP is high for the last 244 + 1984 us before the registers change (32.768 kHz time base)."""

SECONDS, MINUTES, HOURS, WEEKDAY, DAY_OF_MONTH, MONTH, YEAR = 0, 2, 4, 6, 7, 8, 9
ALARM_SECONDS, ALARM_MINUTES, ALARM_HOURS = 1, 3, 5
REG_A, REG_B, REG_C, REG_D, CENTURY = 0x0A, 0x0B, 0x0C, 0x0D, 0x32
TIME_REGISTERS = (SECONDS, MINUTES, HOURS, WEEKDAY, DAY_OF_MONTH, MONTH, YEAR, CENTURY)

B_SET, B_PIE, B_AIE, B_UIE, B_BINARY, B_24H = 0x80, 0x40, 0x20, 0x10, 0x04, 0x02
C_IRQF, C_PERIODIC, C_ALARM, C_UPDATE = 0x80, 0x40, 0x20, 0x10
DIVIDER_RUNS = 0x20
"""Register A bits 6..4 for the 32.768 kHz crystal; anything else stops the chain here."""

_SAVED = ("cmos", "_index", "_flags", "_offset_ticks", "_weekday_shift", "_seen")


class Rtc:
    """Index and data port, 128 bytes, one interrupt line (IRQ 8)."""

    def __init__(
        self,
        clock: Clock,
        irq: IrqLine,
        memory: int = 0,
        epoch: int = DEFAULT_EPOCH,
        name: str = "rtc",
    ) -> None:
        """`memory` is the RAM in bytes that CMOS tells of, `epoch` the date at cycle 0."""
        self.name = name
        self._oscillator = Oscillator(clock, CRYSTAL_HZ)
        self._irq = irq
        self.cmos = bytearray(128)
        self.cmos[REG_A] = DIVIDER_RUNS | 6
        self.cmos[REG_B] = B_24H
        describe_memory(self.cmos, memory)
        self._index = 0
        self._flags = 0
        self._offset_ticks = epoch * CRYSTAL_HZ  # time of day = oscillator + this, in ticks
        self._weekday_shift = 0  # the guest may call any day Sunday
        self._seen = self._ticks()  # how far flags have been worked out

    @property
    def nmi_masked(self) -> bool:
        """True while bit 7 of the index port is set."""
        return bool(self._index & 0x80)

    def read(self, offset: int, _size: int) -> int:
        """Return the register that the index chose; the index itself cannot be read."""
        if offset == 0:
            return 0xFF
        self._catch_up()
        return self._read_register(self._index & 0x7F)

    def write(self, offset: int, _size: int, value: int) -> None:
        """Choose a register, or write the chosen one."""
        if offset == 0:
            self._index = value & 0xFF
            return
        self._catch_up()
        self._write_register(self._index & 0x7F, value & 0xFF)
        self._update()

    def next_event(self) -> int | None:
        """Return the cycle at which an enabled interrupt that is not yet flagged comes due."""
        waiting = self.cmos[REG_B] & ~self._flags
        due = []
        if waiting & B_PIE and (period := self._period()):
            due.append((self._seen // period + 1) * period)
        if waiting & B_UIE and self._updating():
            due.append((self._seen // CRYSTAL_HZ + 1) * CRYSTAL_HZ)
        if waiting & B_AIE and self._updating():
            second = self._next_alarm(self._seen // CRYSTAL_HZ)
            due += [] if second is None else [second * CRYSTAL_HZ]
        return self._oscillator.cycle(min(due) - self._offset_ticks) if due else None

    def fire(self) -> None:
        """Raise the flags that are due, and the line."""
        self._catch_up()

    def save(self) -> State:
        """CMOS, index, flags and the time of day."""
        return save_fields(self, _SAVED)

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        restore_fields(self, _SAVED, state)

    # Time.

    def _ticks(self) -> int:
        """Time of day in crystal ticks since 1970."""
        return self._oscillator.now() + self._offset_ticks

    def _updating(self) -> bool:
        return self._divided() and not self.cmos[REG_B] & B_SET

    def _divided(self) -> bool:
        return self.cmos[REG_A] & 0x70 == DIVIDER_RUNS

    def _period(self) -> int:
        """Return the periodic interrupt's period in ticks, 0 for none (rate select table)."""
        rate = self.cmos[REG_A] & 0x0F
        if not rate or not self._divided():
            return 0
        return 1 << (rate + 6 if rate < 3 else rate - 1)

    def _catch_up(self) -> None:
        """Raise the flags of everything that happened since they were last worked out."""
        before, now = self._seen, self._ticks()
        self._seen = now
        period = self._period()
        if period and now // period > before // period:
            self._flags |= C_PERIODIC
        if self._updating() and now // CRYSTAL_HZ > before // CRYSTAL_HZ:
            self._flags |= C_UPDATE
            alarm = self._next_alarm(before // CRYSTAL_HZ)
            if alarm is not None and alarm <= now // CRYSTAL_HZ:
                self._flags |= C_ALARM
        self._update()

    def _update(self) -> None:
        self._irq(bool(self._flags & self.cmos[REG_B] & (B_PIE | B_AIE | B_UIE)))

    def _next_alarm(self, after: int) -> int | None:
        """Return the first second later than `after` that matches the alarm registers."""
        wanted = [
            self._alarm_value(register, span)
            for register, span in ((ALARM_HOURS, 24), (ALARM_MINUTES, 60), (ALARM_SECONDS, 60))
        ]
        if not all(wanted):
            return None
        hours, minutes, seconds = wanted
        midnight, second_of_day = after // DAY * DAY, after % DAY
        both_days: list[int] = [*hours, *(hour + 24 for hour in hours)]
        for hour in both_days:
            if hour * 3600 + 3599 <= second_of_day:
                continue
            for minute in minutes:
                start = hour * 3600 + minute * 60
                if start + 59 <= second_of_day:
                    continue
                for second in seconds:
                    if start + second > second_of_day:
                        return midnight + start + second
        return None

    def _alarm_value(self, register: int, span: int) -> range:
        """Return the values that match one alarm register: all for "don't care", none if absurd."""
        raw = self.cmos[register]
        if raw >= 0xC0:
            return range(span)
        value = self._decode_hours(raw) if register == ALARM_HOURS else self._decode(raw)
        return range(value, value + 1) if value < span else range(0)

    # Registers.

    def _read_register(self, index: int) -> int:
        if index in TIME_REGISTERS:
            if self._updating():
                self._store_time()
        elif index == REG_A:
            left = CRYSTAL_HZ - self._ticks() % CRYSTAL_HZ
            return self.cmos[REG_A] | (0x80 if self._updating() and left <= UPDATE_TICKS else 0)
        elif index == REG_C:
            value = self._flags
            self._flags = 0
            active = value & self.cmos[REG_B] & (B_PIE | B_AIE | B_UIE)
            self._update()
            return value | (C_IRQF if active else 0)
        elif index == REG_D:
            return 0x80  # the battery is good
        return self.cmos[index]

    def _write_register(self, index: int, value: int) -> None:
        if index in (REG_C, REG_D):
            return
        if index == REG_A:
            self._write_a(value & 0x7F)
        elif index == REG_B:
            self._write_b(value)
        elif index in TIME_REGISTERS and self._updating():
            self._store_time()
            self.cmos[index] = value
            self._load_time()
        else:
            self.cmos[index] = value

    def _write_a(self, value: int) -> None:
        """Leaving the divider's reset, the first update comes half a second later."""
        ran = self._divided()
        if ran and self._updating():
            self._store_time()
        self.cmos[REG_A] = value
        if not ran and self._divided():
            self._load_time(phase=CRYSTAL_HZ // 2)

    def _write_b(self, value: int) -> None:
        """SET stops the updates and forbids their interrupt; clearing it starts the new time."""
        was_set = self.cmos[REG_B] & B_SET
        if value & B_SET:
            value &= ~B_UIE
            if self._updating():
                self._store_time()
        self.cmos[REG_B] = value
        if was_set and not value & B_SET:
            self._load_time()

    def _store_time(self) -> None:
        """Put the running time of day into the registers."""
        seconds = self._ticks() // CRYSTAL_HZ
        when = moment(seconds)
        day = (weekday(seconds) - 1 + self._weekday_shift) % 7 + 1
        for register, value in (
            (SECONDS, when.second),
            (MINUTES, when.minute),
            (WEEKDAY, day),
            (DAY_OF_MONTH, when.day),
            (MONTH, when.month),
            (YEAR, when.year % 100),
            (CENTURY, when.year // 100 % 100),
        ):
            self.cmos[register] = self._encode(value)
        self.cmos[HOURS] = self._encode_hours(when.hour)

    def _load_time(self, phase: int | None = None) -> None:
        """Let the time of day go on from the registers; `phase` is ticks into the second."""
        ticks = self._ticks()
        part = ticks % CRYSTAL_HZ if phase is None else phase
        century, year = self._decode(self.cmos[CENTURY]), self._decode(self.cmos[YEAR])
        seconds = Moment(
            year=century * 100 + year,
            month=self._decode(self.cmos[MONTH]),
            day=self._decode(self.cmos[DAY_OF_MONTH]),
            hour=self._decode_hours(self.cmos[HOURS]),
            minute=self._decode(self.cmos[MINUTES]),
            second=self._decode(self.cmos[SECONDS]),
        ).seconds()
        self._weekday_shift = (self._decode(self.cmos[WEEKDAY]) - weekday(seconds)) % 7
        self._offset_ticks += seconds * CRYSTAL_HZ + part - ticks
        self._seen = self._ticks()

    def _encode(self, value: int) -> int:
        if self.cmos[REG_B] & B_BINARY:
            return value
        return value // 10 << 4 | value % 10

    def _decode(self, value: int) -> int:
        if self.cmos[REG_B] & B_BINARY:
            return value
        return (value >> 4) * 10 + (value & 15)

    def _encode_hours(self, hour: int) -> int:
        if self.cmos[REG_B] & B_24H:
            return self._encode(hour)
        return self._encode((hour + 11) % 12 + 1) | (0x80 if hour >= 12 else 0)

    def _decode_hours(self, value: int) -> int:
        if self.cmos[REG_B] & B_24H:
            return self._decode(value)
        return self._decode(value & 0x7F) % 12 + (12 if value & 0x80 else 0)
