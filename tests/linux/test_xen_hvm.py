"""Debian's generic kernel under VT-x with Xen's dialect: its ways in, and where it is typed at."""

import hashlib
import random
import re
from pathlib import Path

from tests.linux.guests import Boot
from tests.linux.test_boot import answers_a_nonce
from vmm.host.sources import wait

WORDS = "cryptomgr.notests"


def test_a_nonce_is_typed_at_the_pv_console(generic: Boot) -> None:
    """Where the last console is hvc0, as Linux reads from that."""
    text = answers_a_nonce(generic, dialects=["xen"], cmdline=f"console=hvc0 {WORDS}")
    assert "Booting kernel on Xen PVH" in text
    assert "printk: console [hvc0] enabled" in text
    assert "[ttyS0] enabled" not in text


def as_a_pc(generic: Boot, tmp_path: Path, words: str) -> str:
    """Boot by the PC's protocol, read a PV disk, take an address; return the output."""
    disk, data = tmp_path / "disk.raw", random.Random(12).randbytes(1 << 20)
    disk.write_bytes(data)
    text, result = generic.say(
        "sha256sum /dev/xvda", "udhcpc -i eth0 -n -q", "cat /proc/interrupts",
        "cat /sys/bus/pci/devices/*/vendor; cat /sys/hypervisor/type",
        dialects=["xen"], kernel_entry="linux", disks=str(disk), net="user", cpus=2,
        cmdline=f"console=ttyS0 {WORDS} {words}", wait_idle=wait,
    )  # fmt: skip
    assert (result.status, result.reason) == (0, "poweroff"), text[-2000:]
    for line in (
        "Booting paravirtualized kernel on Xen HVM", "unplug emulated disks",
        hashlib.sha256(data).hexdigest(), "0x5853", "\r\nxen\r\n",
    ):  # fmt: skip
        assert line in text, line
    assert "lease of 10.0.2." in text
    return text


def test_a_kernel_that_enters_as_a_pc_finds_xen_by_its_platform_device(
    generic: Boot, tmp_path: Path
) -> None:
    text = as_a_pc(generic, tmp_path, "console=ttyS0")
    assert "Xen HVM callback vector for event delivery is enabled" in text


def test_upcalls_may_come_by_the_pin_of_the_platform_device(generic: Boot, tmp_path: Path) -> None:
    text = as_a_pc(generic, tmp_path, "xen_no_vector_callback")
    assert "callback vector for event delivery is enabled" not in text
    found = re.search(r"IO-APIC +\d+-fasteoi +xen-platform-pci", text)
    assert found, text
