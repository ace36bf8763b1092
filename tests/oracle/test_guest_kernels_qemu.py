"""The guest kernels, judged on QEMU's own processor (TCG): an independent machine.

A kernel that claims what the manual does not say fails here too, and its claim must then be argued
from the manual. Each row of ``guest_kernel/tests/tests.toml`` names the checks that TCG gets wrong.
"""

import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.oracle

ROOT = Path(__file__).resolve().parents[2]
ROWS = tomllib.loads((ROOT / "guest_kernel/tests/tests.toml").read_text())["test"]
QEMU = shutil.which("qemu-system-x86_64")
TIMEOUT_SECONDS = 20
MACHINE = (
    "-accel tcg -cpu max,vendor=GenuineIntel -display none -serial stdio -monitor none -no-reboot "
    "-device isa-debug-exit,iobase=0xf4,iosize=4"
).split()

if QEMU is None:
    pytest.skip("qemu-system-x86_64 is not installed", allow_module_level=True)


def name_of(row: dict[str, Any]) -> str:
    """Test identity: the image and the words of its command line."""
    return "-".join([row["image"], *row["cmdline"].split()])


def load_options(row: dict[str, Any], path: Path) -> list[str]:
    """How QEMU is told to load the image: as a multiboot kernel or as a boot sector."""
    if row["boot"] == "flat":
        disk = path.with_suffix(".disk")
        disk.write_bytes(path.read_bytes().ljust(510, b"\0") + b"\x55\xaa")
        return ["-drive", f"format=raw,file={disk},snapshot=on"]
    cmdline = row.get("qemu", {}).get("cmdline", row["cmdline"])
    return ["-kernel", str(path), "-append", cmdline]


def run(row: dict[str, Any], images: Path) -> tuple[int, str]:
    """Exit status and serial output of one boot; a hang fails the test."""
    assert QEMU is not None
    size = ["-m", row["memory"].removesuffix("M"), "-smp", str(row.get("cpus", 1))]
    command = [QEMU, *MACHINE, *size, *load_options(row, images / row["image"])]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as hang:
        pytest.fail(f"no end after {TIMEOUT_SECONDS} s: {(hang.stdout or b'')[-500:]!r}")
    return done.returncode, done.stdout.decode(errors="replace").replace("\r", "")


def verdicts(output: str, word: str) -> list[str]:
    """The names of the checks with this verdict."""
    prefix = word + ": "
    return [line.removeprefix(prefix) for line in output.splitlines() if line.startswith(prefix)]


@pytest.mark.parametrize("row", [r for r in ROWS if "qemu" in r["runs_on"]], ids=name_of)
def test_passes_on_qemu(row: dict[str, Any], images: Path) -> None:
    status, output = run(row, images)
    defects = set(row.get("qemu", {}).get("defects", []))
    failed = verdicts(output, "FAIL")
    assert f"TEST: {row['title']}" in output
    assert not set(failed) - defects, output[-4000:]
    assert not verdicts(output, "ABORT")
    wanted = row.get("qemu", {}).get("status", row["status"])
    assert status == (3 if failed else wanted), output[-2000:]
    if wanted == 1:
        assert verdicts(output, "PASS")
        assert "SUMMARY: " in output


def test_rows_are_complete() -> None:
    """A row that leaves a machine out says why; every image has a row."""
    for row in ROWS:
        assert row["runs_on"] == ["ring1", "qemu", "bochs"] or row["reason"]
    folder = ROOT / "guest_kernel/tests"
    paths = [path.relative_to(folder) for path in folder.rglob("*.[cS]")]
    images = {"_".join(p.with_suffix("").parts) for p in paths if p.parts[0] not in ("asm", "xen")}
    # The host swaps its pages out: tests/guest/test_kvm_faults.py. It needs a victim: ring1 lab.
    # Xen's: tests/guest/test_xen_guests.py.
    sources = images - {"kvm_fault", "native_attack"}
    assert sources == {Path(row["image"]).stem for row in ROWS} - {"elf64"}


def test_named_defects_exist(images: Path) -> None:
    """A defect names a check that is really in the image, so that a renamed check is noticed."""
    for row in ROWS:
        content = (images / row["image"]).read_bytes()
        for defect in row.get("qemu", {}).get("defects", []):
            parts = (defect, defect.split(": ", 1)[-1], defect.split(", ", 1)[-1])
            assert any(part.encode() in content for part in parts), f"{row['image']}: {defect}"
