"""The balloon: memory really goes back to the host, statistics come, reports are believed."""

import mmap
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.vmm.virtio.driven import Driven
from vmm.virtio.balloon import DEFLATE, INFLATE, STATS, Balloon, BalloonFeature
from vmm.virtio.features import bits

PAGE = 4096
REPORTING = 3


def driven(*, memory: int = 4 << 20, **options: Any) -> tuple[Driven, Balloon]:
    driver = Driven(lambda context: Balloon("balloon", context, **options), memory=memory)
    assert isinstance(driver.device, Balloon)
    return driver, driver.device


def resident_kib() -> int:
    """Memory of this process that the host holds (proc(5), /proc/self/status)."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def numbers(*pages: int) -> bytes:
    return struct.pack(f"<{len(pages)}I", *pages)


def test_inflated_pages_go_back_to_the_host() -> None:
    driver, balloon = driven(memory=64 << 20)
    ram = driver.memory.ram
    for at in range(16 << 20, 64 << 20, 1 << 20):
        ram.write(at, b"\xaa" * (1 << 20))
    full = resident_kib()
    pages = list(range(4096, 16384))
    random.Random(1).shuffle(pages)
    for at in range(0, len(pages), 256):
        driver.request(INFLATE, [numbers(*pages[at : at + 256])])
        driver.drivers[INFLATE].used()
    assert balloon.released == 48 << 20
    assert full - resident_kib() > 40 << 10
    assert ram.read(16 << 20, 48 << 20) == bytes(48 << 20)


def test_only_what_is_listed_goes() -> None:
    driver, balloon = driven()
    ram = driver.memory.ram
    ram.write(3 << 20, b"\xaa" * (1 << 20))
    first = (3 << 20) // PAGE
    driver.request(INFLATE, [numbers(first, first + 2, first + 3, first)])
    kept = [bool(any(ram.read((first + n) * PAGE, PAGE))) for n in range(5)]
    assert kept == [False, True, False, False, True]
    assert balloon.released == 3 * PAGE
    driver.request(DEFLATE, [numbers(first)])
    assert len(driver.drivers[DEFLATE].used()) == 1


def test_pages_outside_of_ram_are_left_alone() -> None:
    driver, balloon = driven()
    last = (4 << 20) // PAGE - 1
    driver.request(INFLATE, [numbers(last, last + 1, last + 2, 0xFFFF_FFFF, 1 << 31) + b"\1\2"])
    assert balloon.released == PAGE
    assert balloon.live


def test_target_and_actual() -> None:
    driver, balloon = driven(target=8 << 20)
    assert balloon.read_config(0, 4) == 2048
    balloon.target = 16 << 20
    assert driver.config_interrupts == 1
    assert (balloon.target, balloon.read_config(0, 4)) == (16 << 20, 4096)
    balloon.write_config(4, 4, 4096)
    balloon.write_config(0, 4, 1)  # not the driver's
    assert (balloon.actual, balloon.target) == (16 << 20, 16 << 20)
    driver.start()
    assert balloon.actual == 0


def test_statistics_are_asked_for_and_read() -> None:
    driver, balloon = driven()
    report = struct.pack("<HQHQHQ", 4, 1000, 5, 2000, 99, 7) + b"\1"
    driver.request(STATS, [report])
    assert balloon.statistics == {"free": 1000, "total": 2000}
    assert driver.drivers[STATS].used() == []  # the device keeps the buffer
    balloon.poll_statistics()
    assert len(driver.drivers[STATS].used()) == 1
    driver.request(STATS, [struct.pack("<HQ", 4, 900)])
    assert balloon.statistics["free"] == 900
    balloon.poll_statistics()
    balloon.poll_statistics()  # nothing to give back
    assert len(driver.drivers[STATS].used()) == 1


def test_statistics_can_be_asked_for_by_the_clock() -> None:
    driver, balloon = driven(poll_ns=1_000_000)
    driver.request(STATS, [struct.pack("<HQ", 4, 1)])
    assert balloon.next_event() == 2_500_000
    driver.let_time_pass()
    assert driver.interrupts == [STATS]
    assert len(driver.drivers[STATS].used()) == 1
    assert balloon.next_event() is None


@pytest.mark.parametrize("queue", [3, 4])
def test_reported_pages_are_released_whole(queue: int) -> None:
    driver, balloon = driven()
    ram = driver.memory.ram
    ram.write(2 << 20, b"\xaa" * (1 << 20))
    driver.memory.top = (2 << 20) + 100
    driver.request(queue, [], (3 * PAGE, 5 * PAGE))
    data = ram.read(2 << 20, 16 * PAGE)
    assert data[:PAGE] == b"\xaa" * PAGE  # begins in the middle of the page
    assert balloon.released == (2 + 4) * PAGE
    assert data[PAGE : 3 * PAGE] == bytes(2 * PAGE)
    assert len(driver.drivers[queue].used()) == 1


def test_options_decide_what_is_offered() -> None:
    _, balloon = driven(reporting=False, deflate_on_oom=False)
    assert not balloon.features & bits(BalloonFeature.REPORTING, BalloonFeature.DEFLATE_ON_OOM)
    assert balloon.features & bits(BalloonFeature.STATS_VQ)


def test_state_is_written_down_with_the_buffer_that_is_kept() -> None:
    driver, balloon = driven(poll_ns=1_000_000)
    other, same = driven(poll_ns=1_000_000)
    driver.request(STATS, [struct.pack("<HQ", 4, 1)])
    other.memory.ram.write(0, driver.memory.ram.read(0, 1 << 20))
    same.restore(balloon.save())
    assert same.save() == balloon.save()
    assert other.let_time_pass()
    other.drivers[STATS] = driver.drivers[STATS]
    other.drivers[STATS].memory = other.memory
    assert len(other.drivers[STATS].used()) == 1


def test_a_page_is_a_page() -> None:
    assert mmap.PAGESIZE == PAGE
