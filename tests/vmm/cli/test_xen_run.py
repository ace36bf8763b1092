"""What `ring1 run` says of a PV guest: what it broke, what it called that there is not."""

import subprocess
import sys
from pathlib import Path


def run(image: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vmm", "run", "--technique", "pv", "--memory", "16M"]
    return subprocess.run(
        [*command, str(image), *words], capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_breaches_are_told_with_rule_address_and_source(images: Path) -> None:
    done = run(images / "xen_breaches.elf")
    assert done.returncode == 0, done.stderr
    assert "ring1: the guest broke rules of Xen's ABI 12 times\n" in done.stderr
    assert "  1 x PIN: a frame cannot be the page table that it is pinned" in done.stderr
    assert "see public/xen.h, MMUEXT_PIN_L1_TABLE" in done.stderr


def test_calls_that_there_are_not_are_told_and_traced(images: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    done = run(images / "xen_refused.elf", "--trace", str(trace))
    assert done.returncode == 0, done.stderr
    assert "answered with ENOSYS: 63 (1 x), 1000 (1 x)" in done.stderr
    assert "broke rules" not in done.stderr
    calls = [line for line in trace.read_text().splitlines() if "kvm_hypercall" in line]
    assert any("nr 0x7 platform_op a1 0x" in line for line in calls)
    assert any("nr 0x3e8 unknown a1 0x" in line for line in calls)


def test_a_node_of_xenstore_is_only_for_guests_of_xen(images: Path) -> None:
    done = run(images / "xen_refused.elf", "--xenstore", "control")
    assert done.returncode == 64
    assert done.stderr.count("\n") == 1
    assert "'control' is not PATH=VALUE[@TIME]" in done.stderr
