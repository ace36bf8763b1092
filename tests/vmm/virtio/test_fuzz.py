"""A sample of what `tests/vmm/virtio/fuzz.py` does at length, for each device and transport."""

import pytest

from tests.vmm.virtio.disk import DiskDriver
from tests.vmm.virtio.fuzz import Check, MakeDevice, run
from tests.vmm.virtio.machine import BUSES, Machine, VirtioBus
from vmm.storage.image import Views
from vmm.virtio.blk import Blk
from vmm.virtio.blk_timing import TIMINGS

DISK = 1 << 20


class MemoryDisk:
    """A disk in memory that notices when it is asked for what is not there."""

    size, read_only = DISK, False

    def __init__(self) -> None:
        self.data = bytearray(DISK)

    def read(self, offset: int, views: Views) -> None:
        for view in views:
            assert 0 <= offset <= offset + len(view) <= DISK
            view[:] = self.data[offset : offset + len(view)]
            offset += len(view)

    def write(self, offset: int, views: Views) -> None:
        for view in views:
            assert 0 <= offset <= offset + len(view) <= DISK
            self.data[offset : offset + len(view)] = view
            offset += len(view)

    def zero(self, offset: int, size: int, *, unmap: bool) -> None:
        self.write(offset, [memoryview(bytes(size))])

    def discard(self, offset: int, size: int) -> None:
        assert offset + size <= DISK

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


def make_blk(machine: Machine) -> Blk:
    return Blk("disk0", machine.context, MemoryDisk(), TIMINGS["ssd"], packed=True)


def check_blk(machine: Machine, bus: VirtioBus) -> None:
    driver = DiskDriver(machine, bus, size=16)
    driver.write(9, b"sound" * 102 + b"!!")
    assert driver.read(9, 512) == b"sound" * 102 + b"!!"


DEVICES: dict[str, tuple[MakeDevice, Check]] = {"blk": (make_blk, check_blk)}
"""Add a device here, and it is fuzzed too."""


@pytest.mark.parametrize("way", BUSES)
@pytest.mark.parametrize("name", DEVICES)
def test_a_hostile_driver_breaks_nothing(name: str, way: str) -> None:
    make, check = DEVICES[name]
    run(make, check, way, seed=len(way), sequences=500)
