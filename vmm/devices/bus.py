"""Address -> device, for ports and for memory.

An access that one device decodes whole is handed over whole. A wider one, or one that crosses the
border of a range, is halved until each piece fits: what an ISA bus does with a dword access to byte
ports. Where nobody answers, reads float to all ones and writes are dropped; each such address is
reported once.

Beside the ranges that stay (`register`) there are movable ones (`overlay`): PCI's BARs, which the
guest puts anywhere. They show where nothing else is.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vmm.devices.device import Device, LineOnly, Registers, Timed, Untimed
from vmm.errors import UsageError

UnknownReport = Callable[[str, int, int, bool], None]
"""on_unknown(bus name, address, size, is it a write)."""

Shortcut = Callable[[int], int]
"""Takes the byte that would be written, returns the byte that is there; -1: ask in full."""

REMEMBERED_UNKNOWN = 4096
"""A hostile guest can touch any number of addresses; we remember and report this many."""


@dataclass(frozen=True, slots=True)
class Range:
    """Addresses base .. end - 1 belong to `device`, whose offsets there start at `offset_base`."""

    base: int
    end: int
    device: Registers
    offset_base: int
    width: int
    timed: bool
    """An access may change the device's next event."""
    quiet: Device | None = None
    """The device, where its interrupt lines and its next event tell of all that it does."""

    def holds(self, address: int, size: int) -> bool:
        """True if the device takes this access in one piece."""
        return self.base <= address and address + size <= self.end and size <= self.width


@dataclass(frozen=True, slots=True)
class Overlay:
    """A movable range: `size` bytes at `base`, decoded `width` bytes at once."""

    base: int
    size: int
    registers: Registers
    width: int
    timed: bool
    """An access may change the next event of the device behind."""


class Bus:
    """One address space (ports or memory) and the devices that answer in it."""

    def __init__(self, name: str, on_unknown: UnknownReport | None = None) -> None:
        """`on_unknown` hears of each address that no device owns, once."""
        self.name = name
        self.on_unknown = on_unknown
        self.unknown: dict[int, int] = {}
        self.touched = True  # a device with events was accessed since somebody last cleared this
        self.stirred = True  # likewise: something that may have made or taken back an interrupt
        self.shortcuts: dict[int, Shortcut] = {}
        """Byte accesses that a device may answer at once; the key is port_key()."""
        self._bases: list[int] = []
        self._ranges: list[Range] = []  # all of them; the fixed ones are in _fixed too
        self._fixed: list[Range] = []
        self._devices: list[Device] = []

    def register(
        self, base: int, length: int, device: Device, offset_base: int = 0, width: int = 8
    ) -> None:
        """Give addresses base .. base + length - 1 to `device`, which decodes `width` at once.

        Raises UsageError when another device already answers there.
        """
        end = base + length
        for other in self._fixed:
            if base < other.end and other.base < end:
                raise UsageError(
                    f"{self.name} range {base:#x}-{end - 1:#x} of device {device.name!r} overlaps "
                    f"{other.base:#x}-{other.end - 1:#x} "
                    f"of device {other.device.name!r}: move one of them"
                )
        timed = not isinstance(device, Untimed)
        quiet = device if isinstance(device, LineOnly) else None
        found = Range(base, end, device, offset_base, width, timed, quiet)
        self._fixed.append(found)
        self._insert(found)
        if all(device is not known for known in self._devices):
            self._devices.append(device)

    def overlay(self, places: Iterable[Overlay]) -> None:
        """Replace all movable ranges; where two overlap, the fixed one and the earlier one win."""
        self.touched = True
        self._ranges = sorted(self._fixed, key=lambda found: found.base)
        self._bases = [found.base for found in self._ranges]
        for place in places:
            for start, end in self._gaps(place.base, place.base + place.size):
                offset = start - place.base
                self._insert(Range(start, end, place.registers, offset, place.width, place.timed))

    def disconnect(self) -> None:
        """Let no device answer any more."""
        self._fixed, self._devices = [], []
        self.overlay(())

    def devices(self) -> list[Device]:
        """Return each device once, in the order of registration."""
        return list(self._devices)

    def ranges(self) -> list[Range]:
        """Return who answers where now, by address."""
        return list(self._ranges)

    def answers(self, address: int) -> bool:
        """True if some device owns `address`."""
        return self._find(address, 1) is not None

    def read(self, address: int, size: int) -> int:
        """Return `size` (1, 2, 4, 8) bytes at `address`; all ones where nobody answers."""
        found = self._find(address, size)
        if found is None:
            self._report(address, size, write=False)
            return (1 << 8 * size) - 1
        if found.holds(address, size):
            offset = address - found.base + found.offset_base
            if found.quiet is not None:
                return self._read_quietly(found.quiet, offset, size)
            self.touched |= found.timed
            self.stirred = True
            return found.device.read(offset, size) & ((1 << 8 * size) - 1)
        half = size // 2
        return self.read(address, half) | self.read(address + half, half) << 8 * half

    def write(self, address: int, size: int, value: int) -> None:
        """Store the low `size` (1, 2, 4, 8) bytes of `value`; dropped where nobody answers."""
        value &= (1 << 8 * size) - 1
        found = self._find(address, size)
        if found is None:
            self._report(address, size, write=True)
        elif found.holds(address, size):
            offset = address - found.base + found.offset_base
            if found.quiet is not None:
                self._write_quietly(found.quiet, offset, size, value)
                return
            self.touched |= found.timed
            self.stirred = True
            found.device.write(offset, size, value)
        else:
            half = size // 2
            self.write(address, half, value)
            self.write(address + half, half, value >> 8 * half)

    def stir(self) -> None:
        """An interrupt line moved."""
        self.stirred = True

    def _read_quietly(self, device: Device, offset: int, size: int) -> int:
        before = device.next_event()
        value = device.read(offset, size)
        self._compare(before, device.next_event())
        return value & ((1 << 8 * size) - 1)

    def _write_quietly(self, device: Device, offset: int, size: int, value: int) -> None:
        before = device.next_event()
        device.write(offset, size, value)
        self._compare(before, device.next_event())

    def _compare(self, before: int | None, after: int | None) -> None:
        if before != after:
            self.touched = self.stirred = True

    def next_event(self) -> int | None:
        """Return the earliest next event of all devices, in cycles."""
        return earliest(self._devices)

    def fire(self, now: int) -> None:
        """Fire what is due at cycle `now`, in the order of fire_due()."""
        self.touched = True
        fire_due(self._devices, now)

    def _insert(self, found: Range) -> None:
        place = bisect_right(self._bases, found.base)
        self._bases.insert(place, found.base)
        self._ranges.insert(place, found)

    def _gaps(self, base: int, end: int) -> list[tuple[int, int]]:
        """The parts of [base, end) that nobody has."""
        gaps = []
        for other in self._ranges:
            if base < other.end and other.base < end:
                if base < other.base:
                    gaps.append((base, other.base))
                base = other.end
        return [*gaps, (base, end)] if base < end else gaps

    def _find(self, address: int, size: int) -> Range | None:
        """The last range that starts below the access's end, if it reaches into the access."""
        place = bisect_right(self._bases, address + size - 1) - 1
        if place < 0:
            return None
        found = self._ranges[place]
        return found if address < found.end else None

    def _report(self, address: int, size: int, *, write: bool) -> None:
        seen = self.unknown.get(address)
        if seen is not None:
            self.unknown[address] = seen + 1
        elif len(self.unknown) < REMEMBERED_UNKNOWN:
            self.unknown[address] = 1
            if self.on_unknown is not None:
                self.on_unknown(self.name, address, size, write)


def port_key(port: int, *, reads: bool) -> int:
    """Return the exit qualification of a byte access by IN or OUT to the port in DX."""
    return port << 16 | reads << 3


def earliest(devices: Iterable[Timed]) -> int | None:
    """Return the smallest next_event() of `devices`, or None when nothing will happen."""
    first: int | None = None
    for device in devices:
        event = device.next_event()
        if event is not None and (first is None or event < first):
            first = event
    return first


def fire_due(devices: Iterable[Timed], now: int) -> None:
    """Fire each device whose event has come: earlier events first, then in the order given."""
    due = [(event, d) for d in devices if (event := d.next_event()) is not None and event <= now]
    for _, device in sorted(due, key=lambda pair: pair[0]):
        device.fire()
