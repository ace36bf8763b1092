"""Other real images from Debian's packages: a hypervisor by multiboot, a real-time Linux, GRUB."""

import gzip
import re
import secrets
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.linux.guests import Boot, Console, initrd_for, or_skip
from tests.linux.test_boot import answers_a_nonce
from vmm import VM
from vmm.cli.kernels import fetch_metapackage
from vmm.cli.packages import fetch, lookup


def xen_image() -> bytes:
    """Return Xen's ELF image, by way of the package that depends on the current one."""
    names = lookup("xen-system-amd64").depends
    name = next(name for name in names if name.startswith("xen-hypervisor-"))
    (packed,) = (fetch(name) / "boot").glob("xen-*.gz")
    return gzip.decompress(packed.read_bytes())


def test_xen_starts_and_asks_for_its_first_domain() -> None:
    console = Console([])
    words = "xen no-real-mode console=com1 com1=115200,8n1 noreboot"
    image = or_skip(xen_image)
    with VM(image, cmdline=words, serial_output=console.write, max_instructions=10_000_000) as vm:
        console.steps.append((b"Manual reset required", lambda: vm.interrupt("interrupted")))
        result = vm.run()
    assert result.reason == "interrupted", console.text
    assert re.search(r"\(XEN\) Xen version \d+\.\d+", console.text)
    assert "Bootloader: ring1" in console.text
    assert f"Command line: {words}" in console.text
    assert "dom0 kernel not specified" in console.text


@pytest.mark.slow
def test_the_real_time_kernel_answers_a_nonce(tmp_path: Path) -> None:
    kernel = or_skip(lambda: fetch_metapackage("linux-image-rt-amd64"))
    text = answers_a_nonce(Boot(kernel, initrd_for(kernel, tmp_path)))
    assert "PREEMPT_RT" in text


@pytest.mark.slow
@pytest.mark.oracle
def test_grub_reads_a_file_system(tmp_path: Path) -> None:
    """GRUB 2 as Xen's boot loader for PV guests: to its prompt, and to a file on an ext2 disk."""
    mke2fs = shutil.which("mke2fs", path="/sbin:/usr/sbin:/bin:/usr/bin")
    if mke2fs is None:
        pytest.skip("mke2fs is not installed")
    grub = or_skip(lambda: fetch("grub-xen-host")) / "usr/lib/grub-xen/grub-x86_64-xen.bin"
    files, disk, nonce = tmp_path / "files", tmp_path / "disk", secrets.token_hex(16)
    (files / "deep").mkdir(parents=True)
    (files / "deep" / "n").write_text(nonce)
    subprocess.run([mke2fs, "-q", "-t", "ext2", "-d", files, disk, "4M"], check=True)
    console = Console([
        (b"grub> ", b"ls\n"),
        (b"grub> ", b"cat (xen/xvda)/deep/n\n"),
        (b"grub> ", b"halt\n"),
    ])  # fmt: skip
    with VM(
        grub, technique="pv", memory="64M", disks=f"{disk},readonly", serial_output=console.write,
        poll_input=console.poll, wait_idle=lambda *_: False, max_instructions=10_000_000_000,
    ) as vm:  # fmt: skip
        result = vm.run()
    assert result.reason == "poweroff", console.text[-3000:]
    assert re.search(r"GNU GRUB  version 2\.\d+", console.text)
    assert "(memdisk) (proc) (xen/xvda)" in console.text
    assert nonce in console.text
