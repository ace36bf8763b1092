"""Linux's own drivers on our disks: every transport and ring, file systems, and a kill.

RING1_KILLS=20 kills so often for each kind of image.
"""

import hashlib
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.linux.guests import QUICK, Boot, Console
from tests.vmm.storage import qemu
from vmm import VM, Result
from vmm.cli.initramfs import script_archive
from vmm.state.snapshot import Snapshot
from vmm.storage.opening import open_image

MIB = 1 << 20
BLOCK = 65536


def run_script(
    boot: Boot, folder: Path, script: str, disks: list[str], **options: Any
) -> tuple[str, Result]:
    """Boot, let the script run, power off."""
    path = folder / "script.cpio"
    path.write_bytes(script_archive(script))
    console = Console([])
    with VM(
        boot.kernel.image, initrds=[boot.initrd, path], cmdline=f"{QUICK} quiet", disks=disks,
        serial_output=console.write, max_instructions=20_000_000_000, **options,
    ) as vm:  # fmt: skip
        result = vm.run()
    assert (result.status, result.reason) == (0, "poweroff"), console.text[-2000:]
    for word in ("BUG:", "Oops", "Call Trace", "I/O error", "blk_update_request"):
        assert word not in console.text, console.text[-3000:]
    return console.text, result


WRITE_AND_HASH = """
for disk in /sys/block/vd*; do
    name=/dev/${disk##*/}
    serial=$(cat $disk/serial)
    echo "BEFORE $serial $(sha256sum < $name)"
    [ $(cat $disk/ro) = 1 ] && continue
    dd if=/dev/urandom of=$name bs=4k seek=37 count=150 conv=fsync 2>/dev/null
    dd if=/dev/zero of=$name bs=64k seek=3 count=1 oflag=direct 2>/dev/null
    blkdiscard -z -o 1048576 -l 65536 $name 2>/dev/null
    sync
    echo 3 > /proc/sys/vm/drop_caches
    echo "AFTER $serial $(sha256sum < $name)"
done
grep virtio /proc/interrupts
"""


def hashes(text: str, word: str) -> dict[str, str]:
    return dict(re.findall(rf"{word} (\S+) ([0-9a-f]{{64}})", text))


def content(path: Path) -> bytes:
    image = open_image(path, read_only=True)
    data = bytearray(image.size)
    image.read(0, [memoryview(data)])
    image.close()
    return bytes(data)


def test_linux_reads_and_writes_disks_of_every_kind(cloud: Boot, tmp_path: Path) -> None:
    """One boot, eight disks; the host agrees with the guest about each, before and after."""
    ways = {
        "pci": "", "pci-packed": ",packed", "mmio": ",transport=mmio",
        "mmio-packed": ",transport=mmio,packed", "hdd": ",speed=hdd,queues=2",
        "none": ",speed=none", "fixed": ",readonly", "memory": ",snapshot",
    }  # fmt: skip
    disks, before = [], {}
    for name, words in ways.items():
        path = tmp_path / name
        path.write_bytes(random.Random(name).randbytes(2 * MIB))
        before[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        disks.append(f"{path},serial={name}{words}")
    text, _ = run_script(cloud, tmp_path, WRITE_AND_HASH, disks)
    assert hashes(text, "BEFORE") == before
    after = hashes(text, "AFTER")
    assert set(after) == set(ways) - {"fixed"}
    for name in ways:
        now = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        kept = name in ("fixed", "memory")
        assert now == (before[name] if kept else after[name]), name
        assert after.get(name) != before[name]
    assert re.search(r"IO-APIC +20-fasteoi +virtio", text)
    assert re.search(r"PCI-MSI +\d+-edge +virtio\d+-req", text)


@pytest.mark.oracle
def test_a_file_system_on_qcow2(cloud: Boot, tmp_path: Path) -> None:
    """Made, filled and unmounted by one run, read by the next; qemu-img finds nothing wrong."""
    disk = qemu.create(tmp_path / "disk.qcow2", 32 * MIB)
    fill = """
    mke2fs -F /dev/vda > /dev/null 2>&1
    mount -t ext4 /dev/vda /mnt
    for n in 1 2 3 4 5 6 7 8; do cp /bin/busybox /mnt/copy$n; done
    rm /mnt/copy3 /mnt/copy5
    head -c 3000000 /dev/urandom > /mnt/random
    sync
    fstrim /mnt
    echo "AFTER files $(cat /mnt/* 2>/dev/null | sha256sum)"
    umount /mnt
    """
    text, _ = run_script(cloud, tmp_path, fill, [str(disk)])
    written = hashes(text, "AFTER")
    assert written
    assert qemu.check(disk) == qemu.CLEAN
    look = """
    mount -t ext4 -o ro /dev/vda /mnt
    echo "BEFORE files $(cat /mnt/* 2>/dev/null | sha256sum)"
    """
    text, _ = run_script(cloud, tmp_path, look, [f"{disk},readonly"])
    assert hashes(text, "BEFORE") == written


@pytest.mark.slow
def test_a_run_with_a_disk_is_the_same_each_time(cloud: Boot, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(random.Random(5).randbytes(MIB))
    seen = set()
    for _ in range(2):
        script = "dd if=/dev/vda bs=7k iflag=fullblock | sha256sum | dd of=/dev/vda conv=fsync"
        text, result = run_script(cloud, tmp_path, script, [f"{disk},snapshot"])
        seen.add((text, result.instructions, result.cycles, str(result.exits)))
    assert len(seen) == 1


TORTURE = r"""
n=0
while true; do
    n=$((n+1))
    yes "block $n of many" | dd of=/dev/vda bs=64k seek=$((n%61)) \
        count=1 iflag=fullblock conv=fsync,notrunc 2>/dev/null
    echo "FLUSHED $n"
done
"""


def block(number: int) -> bytes:
    line = b"block %d of many\n" % number
    return (line * (BLOCK // len(line) + 1))[:BLOCK] if number else bytes(BLOCK)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(int(os.environ.get("RING1_KILLS", "1"))))
@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_what_linux_has_flushed_survives_a_kill(
    kind: str, seed: int, cloud: Boot, tmp_path: Path
) -> None:
    disk, script = tmp_path / "disk", tmp_path / "script.cpio"
    if kind == "raw":
        disk.write_bytes(bytes(4 * MIB))
    else:
        qemu.create(disk, 4 * MIB)
    script.write_bytes(script_archive(TORTURE))
    words = [
        *(sys.executable, "-m", "vmm", "run", str(cloud.kernel.image), "--disk", str(disk)),
        *("--initrd", str(cloud.initrd), "--initrd", str(script), "--cmdline", f"{QUICK} quiet"),
    ]
    root = Path(__file__).parents[2]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd=root) as run:
        assert run.stdout is not None
        while b"FLUSHED 3" not in (line := run.stdout.readline()):
            assert line, "the guest has ended"
        time.sleep(random.Random(f"{kind}{seed}").uniform(0, 2))
        run.kill()
        said = line + run.stdout.read()
    flushed = int(re.findall(rb"FLUSHED (\d+)\r?\n", said)[-1])
    if kind == "qcow2":
        assert qemu.check(disk)["corruptions"] == 0
    data = content(disk)
    for place in range(61):
        last = max((n for n in range(1, flushed + 1) if n % 61 == place), default=0)
        found = data[place * BLOCK : (place + 1) * BLOCK]
        if (flushed + 1) % 61 == place:  # was being written: pages of either
            old, new = block(last), block(flushed + 1)
            pages = range(0, BLOCK, 512)
            assert all(found[p : p + 512] in (old[p : p + 512], new[p : p + 512]) for p in pages)
        else:
            assert found == block(last), (place, last, flushed)


SLOWLY = """
echo HALF
for n in 1 2 3 4 5 6 7 8; do
    dd if=/dev/vda bs=16k count=20 skip=$n iflag=direct 2>/dev/null | sha256sum
    dd if=/dev/urandom of=/dev/vda bs=16k count=3 seek=$n oflag=direct 2>/dev/null
done
sha256sum < /dev/vda
"""


@pytest.mark.slow
@pytest.mark.parametrize("words", ["", ",packed", ",transport=mmio,packed"])
def test_going_back_in_the_middle_of_requests(words: str, cloud: Boot, tmp_path: Path) -> None:
    """Snapshots with requests under way, taken back to: what follows is the same, bit by bit."""
    disk, script = tmp_path / "disk", tmp_path / "script.cpio"
    disk.write_bytes(random.Random(6).randbytes(MIB))
    script.write_bytes(script_archive(SLOWLY))
    console = Console([(b"HALF", lambda: vm.interrupt("interrupted"))])
    with VM(
        cloud.kernel.image, initrds=[cloud.initrd, script], cmdline=f"{QUICK} quiet",
        disks=f"{disk},snapshot{words}", serial_output=console.write,
    ) as vm:  # fmt: skip
        assert vm.run().reason == "interrupted"
        (blk,) = vm.peripherals.disks
        vm.restore(vm.snapshot())
        marks: list[tuple[Snapshot, int]] = []
        for _exit in vm:
            if blk.next_event() is not None and len(marks) < 3:
                marks.append((vm.snapshot(), len(console.said)))
        first, digest = bytes(console.said), vm.digest()
        assert len(marks) == 3
        for snapshot, length in marks:
            vm.restore(snapshot)
            del console.said[length:]
            assert vm.run().reason == "poweroff"
            assert bytes(console.said) == first
            assert vm.digest() == digest
