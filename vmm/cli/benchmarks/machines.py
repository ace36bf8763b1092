"""Runs a benchmark image on ring1 and on QEMU TCG; CPU time of each repetition, by name.

CPU time and not wall time, since hosts are shared: of this process for ring1, of the QEMU process,
all its threads, for QEMU.
"""

import os
import shutil
import subprocess
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from vmm.cli.benchmarks.marks import MarkReader
from vmm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm import VM

MEMORY = "128M"
QEMU = "qemu-system-x86_64"
_QEMU_OPTIONS = [
    "-accel", "tcg", "-cpu", "max", "-m", MEMORY, "-nodefaults", "-display", "none",
    "-serial", "null", "-debugcon", "stdio", "-device", "isa-debug-exit,iobase=0xf4",
]  # fmt: skip


def qemu_boot(
    files: tuple[Path, Path], words: str, memory: str, machine: str, *more: str
) -> list[str]:
    """Return the command that boots a kernel and its initrd under QEMU's translator.

    `words` go to the guest, `memory` is in MiB; the guest's serial port is on stdout.
    """
    kernel, initrd = files
    return [
        QEMU, "-accel", "tcg,thread=single", "-M", machine, "-m", memory, "-nodefaults",
        "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
        "-kernel", str(kernel), "-initrd", str(initrd), "-append", words, *more,
    ]  # fmt: skip


def image(name: str) -> Path:
    """Return the path of a built guest image."""
    from importlib.resources import as_file, files

    with as_file(files("vmm") / "images" / name) as path:
        if path.is_file():
            return path
    raise UsageError(f"the guest image {name} has not been built; run make dev")


def on_ring1(
    name: str, percent: int, watched: "Callable[[VM], AbstractContextManager[None]] | None" = None
) -> dict[str, float]:
    """Run an image through the normal VM loop; `percent` scales its repetitions.

    `watched(vm)` is entered around the run.
    """
    from vmm import VM

    marks = MarkReader(time.process_time)
    vm = VM(image(name), memory=MEMORY, cmdline=str(percent), serial_output=marks.feed)
    with vm, nullcontext() if watched is None else watched(vm):
        vm.run()
    return marks.seconds


def on_qemu(name: str, percent: int) -> dict[str, float]:
    """Run it under QEMU's translator."""
    command = [QEMU, *_QEMU_OPTIONS, "-kernel", str(image(name)), "-append", str(percent)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        clock = (
            ~process.pid << 3
        ) | 2  # the CPU-time clock of another process: clock_getcpuclockid()
        marks = MarkReader(lambda: time.clock_gettime(clock))
        while data := os.read(process.stdout.fileno(), 4096):
            marks.feed(data)
    return marks.seconds


def seconds_at(words: list[str], marks: list[bytes]) -> list[float]:
    """Run a command until it has said each of `marks` in turn; its processor seconds at each.

    Fewer if it ends before.
    """
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    said, seconds, awaited = b"", list[float](), list(marks)
    with subprocess.Popen(
        words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        clock = (~process.pid << 3) | 2
        while awaited and (data := os.read(process.stdout.fileno(), 4096)):
            said += data
            while awaited and (at := said.find(awaited[0])) >= 0:
                seconds.append(time.clock_gettime(clock))
                said = said[at + len(awaited.pop(0)) :]
        process.kill()
    return seconds


def qemu_missing() -> str | None:
    """Say why QEMU cannot be a peer here, or None."""
    return None if shutil.which(QEMU) else f"{QEMU} is not installed"
