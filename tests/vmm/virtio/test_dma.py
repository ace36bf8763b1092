"""What a device stores is a store: dirty for snapshots, and code that was there is dropped."""

import random
import struct
from pathlib import Path

from tests.vmm.virtio.machine import MmioBus, bring_up
from tests.vmm.virtio.rings import DriverMemory, Piece
from vmm import VM
from vmm.boardmap import VIRTIO_MMIO


class Here:
    """A VM, as the drivers of `machine` want to see it."""

    def __init__(self, vm: VM) -> None:
        self.board, self.clock, self.vm = vm.board, vm.clock, vm
        self.memory = DriverMemory()
        self.memory.ram = vm.memory
        self.memory.top = 0x40_0000


class Bus(MmioBus):
    """The disk that --disk has put at the first MMIO address."""

    def __init__(self, here: Here) -> None:
        self.machine, self.levels = here, [False]  # type: ignore[assignment]


def read_sector(vm: VM, sector: int, to: int) -> None:
    """Be a driver for a moment: reset the disk, set it up, read one sector to `to`."""
    here = Here(vm)
    bus = Bus(here)
    (ring,) = bring_up(bus, here.memory, features=0, packed=False, sizes=(8,))
    header = here.memory.put(struct.pack("<IIQ", 0, 0, sector))
    status = here.memory.put(b"\xee")
    ring.add([Piece(header, 16, False), Piece(to, 512, True), Piece(status, 1, True)])
    bus.kick(0)
    assert len(ring.used()) == 1
    assert vm.memory.read(status, 1) == b"\0"
    bus.set_status(0)


# mov al, 1 / call 0x1000 / out 0xf4, al / hlt; at 0x1000: mov al, 5 / ret
LOOP = bytes.fromhex("b001 e8fb93") + b"\xf4" + bytes.fromhex("e8f793 e6f4 f4")
OLD = bytes.fromhex("b005 c3")
NEW = bytes.fromhex("b007 c3")


def test_code_that_a_disk_overwrites_is_not_run_any_more(tmp_path: Path) -> None:
    """The routine at 0x1000 runs once, is read over from the disk, and runs again."""
    disk = tmp_path / "disk"
    disk.write_bytes(NEW.ljust(4096, b"\x90"))
    with VM(LOOP, disks=f"{disk},transport=mmio,speed=none") as vm:
        vm.memory.write(0x1000, OLD)
        halted = next(vmexit for vmexit in vm if vmexit.name == "HLT")
        assert vm.regs.rax & 0xFF == 5
        read_sector(vm, 0, 0x1000)
        halted.handled = True
        vm.regs.rip += 1
        result = vm.run()
        assert result.reason == "debug_exit"
        assert vm.regs.rax & 0xFF == 7


def test_a_snapshot_sees_what_a_disk_has_stored(tmp_path: Path) -> None:
    disk, data = tmp_path / "disk", random.Random(9).randbytes(4096)
    disk.write_bytes(data)
    with VM(LOOP, disks=f"{disk},transport=mmio,speed=none") as vm:
        assert VIRTIO_MMIO[0] % 4096 == 0
        first, digest = vm.snapshot(), vm.digest()
        read_sector(vm, 3, 0x8_0123)
        assert vm.memory.read(0x8_0123, 512) == data[1536:2048]
        second, after = vm.snapshot(), vm.digest()
        assert after != digest
        vm.restore(first)
        assert vm.memory.read(0x8_0123, 512) == bytes(512)
        assert vm.digest() == digest
        vm.restore(second)
        assert vm.memory.read(0x8_0123, 512) == data[1536:2048]
        assert vm.digest() == after
