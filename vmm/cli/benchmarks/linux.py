"""Debian's cloud kernel to its shell, beside QEMU TCG: the same ELF, initrd and command line.

Processor time of the whole process, start included, when the shell has written a line. Where the
package cannot be had there is no row.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from vmm.cli.benchmarks.machines import qemu_boot, qemu_missing, seconds_at
from vmm.cli.benchmarks.row import Bound, Row, middle

if TYPE_CHECKING:
    from vmm.cli.kernels import Flavour

_MARKER = b"AT-THE-SHELL"
_MEMORY, _WORDS = "256", "console=ttyS0"
_MACHINES = {"qemu": "microvm,acpi=off", "qemu q35": "q35"}
"""QEMU's leanest machine, without ACPI, PCI and firmware; and a PC with what ring1's has."""
_LIMITS = {"fast": 1.0, "cycle": 1.3}


def measure(runs: int) -> list[Row]:
    """Return a row for each timing; medians of at most three runs, taken in turn."""
    from vmm.cli.packages import PackageError

    with TemporaryDirectory() as folder:
        try:
            files = kernel_and_initrd(Path(folder), f"echo {_MARKER.decode()}\n")
        except PackageError as error:
            sys.stderr.write(f"ring1: no figures for Linux: {error}\n")
            return []
        programs = _programs(*files)
        rounds = [
            {name: _seconds(words) for name, words in programs.items()} for _ in range(min(runs, 3))
        ]
    return [_row(timing, middle(rounds)) for timing in _LIMITS]


def kernel_and_initrd(
    folder: Path, script: str, flavour: "Flavour | None" = None
) -> tuple[Path, Path]:
    """Write the ELF inside a kernel's image (the cloud flavour's, if not told), and an initrd
    whose shell runs ``script``.
    """
    from vmm.boot.linux.bzimage import kernel_inside
    from vmm.cli.demo import initramfs
    from vmm.cli.initramfs import script_archive
    from vmm.cli.kernels import Flavour, fetch_kernel

    kernel = fetch_kernel(flavour or Flavour.CLOUD)
    image, initrd = folder / "vmlinux", folder / "initrd"
    image.write_bytes(kernel_inside(kernel.image.read_bytes()))
    initrd.write_bytes(initramfs(kernel) + script_archive(script))
    return image, initrd


def _programs(image: Path, initrd: Path) -> dict[str, list[str]]:
    ours = [
        sys.executable, "-m", "vmm", "run", str(image), "--initrd", str(initrd),
        "--memory", f"{_MEMORY}M", "--cmdline", _WORDS,
    ]  # fmt: skip
    programs = {timing: [*ours, "--timing", timing] for timing in _LIMITS}
    if qemu_missing() is None:
        for name, machine in _MACHINES.items():
            programs[name] = qemu_boot((image, initrd), _WORDS, _MEMORY, machine)
    return programs


def _seconds(words: list[str]) -> float:
    """Run until the marker is said; processor seconds of the process by then."""
    return next(iter(seconds_at(words, [_MARKER])), float("nan"))


def _row(timing: str, seconds: dict[str, float]) -> Row:
    peers = {name: seconds[name] for name in _MACHINES if name in seconds}
    bounds = [
        Bound(peer, seconds[timing] / value, _LIMITS[timing]) for peer, value in peers.items()
    ]
    return Row(
        "linux", f"Debian's cloud kernel to its shell, --timing {timing}", "s", seconds[timing],
        peers, tuple(bounds),
    )  # fmt: skip
