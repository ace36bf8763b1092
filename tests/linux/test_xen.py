"""Debian's generic kernel, unmodified, as a Xen PV domain."""

import hashlib
import random
from pathlib import Path
from typing import Any

from tests.linux.guests import Boot
from tests.linux.test_boot import answers_a_nonce
from tests.linux.test_devices import Receiver
from vmm.host.sources import wait

PV: dict[str, Any] = {
    "technique": "pv", "memory": "512M", "cmdline": "console=hvc0 cryptomgr.notests",
    "dialects": None,
}  # fmt: skip


def test_the_generic_kernel_answers_a_nonce_on_the_pv_console(generic: Boot) -> None:
    text = answers_a_nonce(generic, **PV)
    assert "Hypervisor detected: Xen PV" in text
    assert "Booting kernel on Xen" in text or "Booting paravirtualized kernel on Xen" in text


def test_under_vtx_the_kernel_finds_xen_and_its_devices(generic: Boot, tmp_path: Path) -> None:
    """`--dialect xen`: PVH entry, event channels by vector, PV disk and network."""
    disk, data = tmp_path / "disk.raw", random.Random(11).randbytes(1 << 20)
    disk.write_bytes(data)
    receiver = Receiver()
    text, result = generic.say(
        "cat /sys/hypervisor/type; grep -E 'xen-|HYP' /proc/interrupts; nproc",
        "udhcpc -i eth0 -n -q", f"nc 10.0.2.2 {receiver.port} -e dd if=/dev/xvda bs=64k",
        dialects=["xen"], disks=str(disk), net="user", cpus=2, wait_idle=wait,
    )  # fmt: skip
    receiver.thread.join(10)
    assert (result.status, result.reason) == (0, "poweroff")
    for line in (
        "Hypervisor detected: Xen HVM", "Booting kernel on Xen PVH",
        "Xen HVM callback vector for event delivery is enabled", "xen-percpu    -virq",
        "xen-dyn-lateeoi    -event     blkif", "\r\nxen\r\n", "\r\n2\r\n",
    ):  # fmt: skip
        assert line in text, line
    assert receiver.data == data


def test_pv_disk_and_network(generic: Boot, tmp_path: Path) -> None:
    """The disk is read and written, and its content goes to a host port over TCP."""
    disk, data = tmp_path / "disk.raw", random.Random(9).randbytes(4 << 20)
    disk.write_bytes(data)
    receiver = Receiver()
    text, result = generic.say(
        "sha256sum /dev/xvda", "udhcpc -i eth0 -n -q",
        f"nc 10.0.2.2 {receiver.port} -e dd if=/dev/xvda bs=64k",
        "echo kept | dd of=/dev/xvda bs=512 seek=8 conv=sync,fsync", **PV,
        disks=str(disk), net="user", wait_idle=wait,
    )  # fmt: skip
    receiver.thread.join(10)
    assert hashlib.sha256(data).hexdigest() in text
    assert receiver.data == data
    assert "persistent grants: enabled; indirect descriptors: enabled" in text
    assert (result.status, result.reason) == (0, "poweroff")
    assert disk.read_bytes() == data[:4096] + b"kept\n".ljust(512, b"\0") + data[4608:]
