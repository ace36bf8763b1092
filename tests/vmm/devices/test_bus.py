import pytest

from vmm.devices.bus import REMEMBERED_UNKNOWN, Bus, earliest, fire_due
from vmm.devices.device import LineOnly, State
from vmm.errors import UsageError


class Scratch:
    """Sixteen bytes of memory, one event, and a diary."""

    def __init__(self, name: str, event: int | None = None, diary: list[str] | None = None) -> None:
        self.name = name
        self.bytes = bytearray(16)
        self.accesses: list[tuple[str, int, int]] = []
        self.event = event
        self.diary = diary if diary is not None else []

    def read(self, offset: int, size: int) -> int:
        self.accesses.append(("read", offset, size))
        return int.from_bytes(self.bytes[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        self.accesses.append(("write", offset, size))
        self.bytes[offset : offset + size] = value.to_bytes(size, "little")

    def next_event(self) -> int | None:
        return self.event

    def fire(self) -> None:
        self.diary.append(self.name)
        self.event = None

    def save(self) -> State:
        return {"version": 1}

    def restore(self, state: State) -> None: ...


def test_overlap_names_both_devices() -> None:
    bus = Bus("port")
    bus.register(0x3F8, 8, Scratch("serial"))
    with pytest.raises(UsageError, match=r"'second'.*'serial'"):
        bus.register(0x3FF, 1, Scratch("second"))
    bus.register(0x400, 1, Scratch("neighbour"))


def test_device_sees_offsets() -> None:
    bus, device = Bus("port"), Scratch("pic")
    bus.register(0x20, 2, device)
    bus.register(0xA0, 2, device, offset_base=2)
    bus.write(0xA1, 1, 0x55)
    assert device.accesses == [("write", 3, 1)]
    assert bus.read(0xA1, 1) == 0x55
    assert len(bus.devices()) == 1


def test_wide_access_to_byte_device_splits_little_endian() -> None:
    bus, device = Bus("port"), Scratch("uart")
    bus.register(0x3F8, 8, device, width=1)
    bus.write(0x3F9, 4, 0x44332211)
    assert device.bytes[1:5] == b"\x11\x22\x33\x44"
    assert [access[2] for access in device.accesses] == [1, 1, 1, 1]
    assert bus.read(0x3F9, 2) == 0x2211


def test_access_over_a_border_reaches_both_sides() -> None:
    bus, low, high = Bus("port"), Scratch("low"), Scratch("high")
    bus.register(0x10, 1, low)
    bus.register(0x11, 1, high)
    bus.write(0x10, 2, 0xBBAA)
    assert (low.bytes[0], high.bytes[0]) == (0xAA, 0xBB)
    assert bus.read(0x11, 2) == 0xFFBB, "the byte behind the last device floats"
    assert bus.read(0x0F, 2) == 0xAAFF


def test_unknown_reads_ones_drops_writes_and_is_reported_once() -> None:
    reports: list[tuple[str, int, int, bool]] = []
    bus = Bus("port", lambda *report: reports.append(report))
    assert [bus.read(0x1234, size) for size in (1, 2, 4, 8)] == [
        0xFF,
        0xFFFF,
        0xFFFFFFFF,
        2**64 - 1,
    ]
    bus.write(0x1234, 1, 7)
    bus.write(0x99, 2, 7)
    assert reports == [("port", 0x1234, 1, False), ("port", 0x99, 2, True)]
    assert bus.unknown == {0x1234: 5, 0x99: 1}


def test_a_guest_cannot_fill_our_memory_with_unknown_addresses() -> None:
    bus = Bus("memory")
    for address in range(0, 0x10000 * 8, 8):
        bus.read(address, 8)
    assert len(bus.unknown) == REMEMBERED_UNKNOWN


def test_next_event_is_the_minimum_and_firing_is_by_time_then_order() -> None:
    diary: list[str] = []
    devices = [
        Scratch("late", 30, diary),
        Scratch("first", 10, diary),
        Scratch("tie", 10, diary),
        Scratch("never", None, diary),
        Scratch("future", 31, diary),
    ]
    assert earliest(devices) == 10
    fire_due(devices, 30)
    assert diary == ["first", "tie", "late"]
    assert earliest(devices) == 31


class Quiet(Scratch, LineOnly):
    """A write of `n` to its first byte sets its event to cycle n."""

    def write(self, offset: int, size: int, value: int) -> None:
        super().write(offset, size, value)
        if offset == 0:
            self.event = value


def settled(device: Scratch) -> Bus:
    bus = Bus("port")
    bus.register(0, 8, device)
    bus.touched = bus.stirred = False
    return bus


def test_a_device_heard_by_its_line_only_is_quiet() -> None:
    bus = settled(Quiet("serial", event=7))
    bus.write(1, 1, 5)
    assert bus.read(1, 1) == 5
    assert not bus.touched
    assert not bus.stirred
    bus.stir()
    assert bus.stirred
    assert not bus.touched


def test_a_new_event_of_a_quiet_device_is_noticed() -> None:
    bus = settled(Quiet("serial", event=7))
    bus.write(0, 1, 7)
    assert not bus.touched
    bus.write(0, 1, 9)
    assert bus.touched
    assert bus.stirred


def test_every_access_of_another_device_stirs() -> None:
    bus = settled(Scratch("pic"))
    bus.read(1, 1)
    assert bus.touched
    assert bus.stirred
