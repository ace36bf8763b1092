"""Other people's PV guests: Debian's GRUB for Xen, Mini-OS, the Xen Test Framework.

The last two are in no package: RING1_MINIOS names the ELF of Mini-OS, RING1_XTF the built tree of
the test framework; docs/XEN.md says how they are built.
"""

import io
import os
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.linux.guests import PROMPT, Boot, Console, or_skip
from vmm import VM
from vmm.cli.packages import fetch

MOST_INSTRUCTIONS = 20_000_000_000


XTF_NEEDS_ANOTHER = {
    "argo": "Argo", "cpuid-faulting": "CPUID faulting", "pv-fsgsbase": "FSGSBASE",
    "xsa-167": "superpages", "xsa-182": "linear page tables", "xsa-444": "DBEXT, which is AMD's",
}  # fmt: skip
"""Tests that skip themselves, for lack of what is named."""
XTF_FAILS = {
    "xsa-188": "there are no FIFO event channels",
}
XTF_HVM_FAILS = {
    "xsa-188": "there are no FIFO event channels",
    **dict.fromkeys(("xsa-195", "xsa-277"), "there is no balloon beside VT-x"),
}
XTF_HVM_LONG = {"msr", "xsa-269"} | {"nested-vmx", "nested-svm", "livepatch-priv-check"}
"""All MSRs that there can be; what waits for what we do not have; what is not offered."""
XTF_WORDS = {"pv-iopl": ("hypercall", "vmassist")}


@pytest.fixture(scope="session")
def grub() -> Path:
    found = or_skip(lambda: fetch("grub-xen-host")) / "usr/lib/grub-xen/grub-x86_64-xen.bin"
    assert found.is_file(), found
    return found


def tar_disk(path: Path, files: dict[str, bytes]) -> Path:
    """A disk that holds a tar archive, which GRUB reads as a file system."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def run(image: Path, console: Console, *, innocent: bool = True, **options: Any) -> Any:
    """Run it to its end; the audit finds nothing, nor the referee in what does no wrong."""
    given = {"memory": "64M", "max_instructions": MOST_INSTRUCTIONS, "timing": "cycle", **options}
    with VM(
        image, technique="pv", serial_output=console.write, poll_input=console.poll,
        wait_idle=lambda *_: False, **given,
    ) as vm:  # fmt: skip
        result = vm.run()
        assert vm.domain is not None
        found, first = vm.domain.engine.audit()
        assert not found, first
        assert not vm.domain.unknown
        assert not innocent or not vm.domain.engine.breaches()
    return result


def named(variable: str, what: str) -> Path:
    """Return the file or folder that an environment variable names; skip with the reason."""
    path = Path(os.environ.get(variable, ""))
    if not os.environ.get(variable):
        pytest.skip(f"{what} is in no package; {variable} names one that was built (docs/XEN.md)")
    assert path.exists(), f"{variable}={path} is not there"
    return path


def test_grub_reads_a_pv_disk_and_is_typed_at(grub: Path, tmp_path: Path) -> None:
    """Its configuration comes from xvda; then it talks on the PV console, and halts."""
    disk = tar_disk(tmp_path / "disk", {"boot/grub/grub.cfg": b"echo nonce-$root-\nls\n"})
    console = Console([(b"grub> ", b"echo typed-${root}-\n"), (b"grub> ", b"halt\n")])
    result = run(grub, console, disks=str(disk))
    assert (result.status, result.reason) == (0, "poweroff"), console.text
    for text in ("nonce-xen/xvda-", "(memdisk) (proc) (xen/xvda)", "typed-xen/xvda-"):
        assert text in console.text, text


@pytest.mark.slow
def test_grub_boots_linux_from_a_pv_disk(grub: Path, generic: Boot, tmp_path: Path) -> None:
    """GRUB unpacks the kernel, makes its page tables and start_info, and leaves itself to it."""
    files = {
        "boot/grub/grub.cfg": b"linux /vmlinuz console=hvc0 cryptomgr.notests\n"
        b"initrd /initrd.gz\nboot\n",
        "vmlinuz": generic.kernel.image.read_bytes(), "initrd.gz": generic.initrd.read_bytes(),
    }  # fmt: skip
    disk = tar_disk(tmp_path / "disk", files)
    lines = [f"echo $(({nonce} * {nonce}))\n".encode() for nonce in (8675309,)]
    console = Console([(PROMPT, line) for line in (*lines, b"poweroff\n")])
    result = run(grub, console, disks=str(disk), memory="512M")
    assert (result.status, result.reason) == (0, "poweroff"), console.text[-2000:]
    assert f"\r\n{8675309**2}\r\n" in console.text
    assert "Hypervisor detected: Xen PV" in console.text


def test_mini_os_reaches_its_banner_and_is_shut_down_by_xenstore() -> None:
    image = named("RING1_MINIOS", "Mini-OS")
    console = Console([])
    result = run(image, console, xenstore="control/shutdown=poweroff@3s")
    assert (result.status, result.reason) == (0, "poweroff"), console.text
    assert "Xen Minimal OS (pv)!" in console.text
    assert re.search(r"xenbus initialised on irq \d", console.text)
    assert 3 <= result.cycles / 2.5e9 < 3.2  # of 2.5 GHz


def test_xen_test_framework(subtests: pytest.Subtests) -> None:
    """Each test of Xen's own that is for 64-bit PV guests says SUCCESS, but for those above."""
    tree = named("RING1_XTF", "the Xen Test Framework")
    images = sorted(p for p in tree.glob("tests/*/test-pv64-*") if p.suffix != ".cfg")
    assert len(images) > 30, tree
    for image in images:
        name = image.parent.name
        wanted = "SKIP" if name in XTF_NEEDS_ANOTHER else "SUCCESS"
        for words in XTF_WORDS.get(name, ("",)):
            with subtests.test(name, words=words):
                console = Console([])
                limit = 300_000_000
                run(image, console, innocent=False, cmdline=words, cpus=2, max_instructions=limit)
                said = re.findall(r"Test result: (\w+)", console.text)
                assert said, console.text
                assert (said[0] == wanted) is (name not in XTF_FAILS), console.text


def test_xen_test_framework_beside_vtx(subtests: pytest.Subtests) -> None:
    """Its tests for 64-bit HVM guests enter by PVH, under `--dialect xen`."""
    tree = named("RING1_XTF", "the Xen Test Framework")
    images = sorted(p for p in tree.glob("tests/*/test-hvm64-*") if p.suffix != ".cfg")
    for image in images:
        name = image.parent.name
        if name in XTF_HVM_LONG:
            continue
        with subtests.test(name):
            said = bytearray()
            with VM(
                image, dialects=["xen"], memory="128M", serial_output=said.extend,
                max_instructions=100_000_000,
            ) as vm:  # fmt: skip
                result = vm.run()
            verdicts = re.findall(rb"Test result: (\w+)", said)
            good = bool(verdicts) and set(verdicts) <= {b"SUCCESS", b"SKIP"}
            assert good is (name not in XTF_HVM_FAILS), said.decode()
            assert result.reason == "poweroff"
            assert b"PANIC" not in said
