"""--disk, from words to a device in a VM; bad words and bad files cost one line and status 64."""

import subprocess
import sys
from pathlib import Path

import pytest

from vmm import VM
from vmm.config import Config
from vmm.devices.pci.registers import Header
from vmm.disks import Disk, ImageFormat, Speed, TransportKind
from vmm.errors import UsageError


def test_words_become_a_disk(tmp_path: Path) -> None:
    assert Disk.of("a.img") == Disk(Path("a.img"))
    words = "a,format=raw,readonly,snapshot=off,transport=mmio,packed=on,speed=none,serial=x"
    words += ",queues=4"
    assert Disk.of(words) == Disk(
        Path("a"), ImageFormat.RAW, readonly=True, transport=TransportKind.MMIO, packed=True,
        speed=Speed.NONE, serial="x", queues=4,
    )  # fmt: skip
    odd = tmp_path / "a,b=c"
    odd.touch()
    assert Disk.of(str(odd)).path == odd
    assert Config.of(disks=["a", "b,snapshot"]).disks == (
        Disk(Path("a")),
        Disk(Path("b"), snapshot=True),
    )


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("a,format=vmdk", "'vmdk'"),
        ("a,reedonly", "'reedonly'"),
        ("a,readonly=yes", "readonly=yes"),
        ("a,transport=", "transport ''"),
        ("a,serial=", "serial"),
        ("a,serial=" + "x" * 21, "20"),
        ("a,queues=0", "queues"),
        ("a,queues=17", "16"),
        ("a,queues=x", "'x'"),
        ("a,", "''"),
        (",readonly", "names no file"),
    ],
)
def test_bad_words_are_refused_by_name(words: str, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        Config.of(disks=words)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def raw(path: Path, size: int = 1 << 20) -> Path:
    path.write_bytes(bytes(size))
    return path


def test_disks_appear_on_pci_and_in_memory(tmp_path: Path) -> None:
    first, second = raw(tmp_path / "a"), raw(tmp_path / "b")
    with VM(None, disks=[first, f"{second},transport=mmio"]) as vm:
        found = {f.space[Header.DEVICE, 2] for f in vm.board.pci.functions.values()}
        assert 0x1042 in found
        assert vm.board.read_memory(0, 0xFEB0_0000, 4) == 0x7472_6976
        assert vm.board.read_memory(0, 0xFEB0_0008, 4) == 2
        assert b"LNRO0005" in vm.memory.read(0xE_0000, 0x2_0000)
        with pytest.raises(UsageError, match="locked"):
            VM(None, disks=first)
        assert vm.run().status == 0
    with VM(None, disks=first) as vm:
        vm.restore(vm.snapshot())


def test_a_vm_that_cannot_be_built_lets_go_of_its_disks(tmp_path: Path) -> None:
    disk = raw(tmp_path / "a")
    with pytest.raises(UsageError, match="no line is left"):
        VM(None, disks=[f"{raw(tmp_path / str(n))},transport=mmio" for n in range(5)])
    with pytest.raises(UsageError, match="does not exist"):
        VM(None, disks=[disk, tmp_path / "nowhere"])
    VM(None, disks=disk).close()


def test_a_reset_keeps_what_was_written_in_snapshot_mode(tmp_path: Path) -> None:
    with VM(None, disks=f"{raw(tmp_path / 'a')},snapshot") as vm:
        (disk,) = vm.peripherals.disks
        before = vm.snapshot()
        disk.image.write(512, [memoryview(b"new!" * 128)])
        after = vm.snapshot()
        vm._restart()
        data = bytearray(512)
        disk.image.read(512, [memoryview(data)])
        assert data == b"new!" * 128
        vm.restore(before)
        disk.image.read(512, [memoryview(data)])
        assert data == bytes(512)
        vm.restore(after)
        disk.image.read(512, [memoryview(data)])
        assert data == b"new!" * 128
    assert (tmp_path / "a").read_bytes() == bytes(1 << 20)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_bytes(b"x" * 700), "truncated"),
        (lambda path: path.write_bytes(b"KDMV".ljust(1024)), "vmdk"),
        (lambda path: path.write_bytes(b"QFI\xfb\0\0\0\x03"), "truncated"),
        (lambda path: path.mkdir(), "--disk"),
    ],
    ids=["missing", "odd", "foreign", "cut", "folder"],
)
def test_a_bad_file_costs_one_line_and_status_64(make: object, words: str, tmp_path: Path) -> None:
    path = tmp_path / "disk"
    make(path)  # type: ignore[operator]
    before = path.read_bytes() if path.is_file() else b""
    done = subprocess.run(
        [sys.executable, "-m", "vmm", "run", "--disk", str(path)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 64
    assert done.stdout == ""
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_a_hostile_driver_costs_a_line_and_the_disk(tmp_path: Path) -> None:
    """The available index jumps: the device asks for a reset, says why, and the guest goes on."""
    lines: list[str] = []
    with VM(None, disks=f"{raw(tmp_path / 'a')},transport=mmio", log=lines.append) as vm:
        base = 0xFEB0_0000
        writes = [
            *((0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11), (0x30, 0), (0x38, 8)),
            *((0x80, 0x10_0000), (0x90, 0x10_1000), (0xA0, 0x10_2000), (0x44, 1), (0x70, 15)),
        ]
        for offset, value in writes:
            vm.board.write_memory(0, base + offset, 4, value)
        vm.memory.write(0x10_1002, b"\xff\xff")
        vm.board.write_memory(0, base + 0x50, 4, 0)
        assert vm.board.read_memory(0, base + 0x70, 4) == 0x4F
        (line,) = lines
        assert line.startswith("virtio device disk0 needs a reset: queue 0: the available index")
        vm.board.write_memory(0, base + 0x70, 4, 0)
        assert vm.run().status == 0
