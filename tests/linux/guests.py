"""Debian's kernels as guests: what is fetched, and somebody who types at their console."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from vmm import VM, Result
from vmm.cli.demo import initramfs
from vmm.cli.kernels import Flavour, Kernel, fetch_kernel
from vmm.cli.packages import PackageError

PROMPT = b"ring1# "
QUICK = "console=ttyS0 cryptomgr.notests"  # two thirds of a boot are the kernel's tests of ciphers
MOST_INSTRUCTIONS = 20_000_000_000


Fetched = TypeVar("Fetched")


def kernel_or_skip(flavour: Flavour) -> Kernel:
    """Fetch a kernel of Debian's or Ubuntu's."""
    return or_skip(lambda: fetch_kernel(flavour))


def or_skip(get: Callable[[], Fetched]) -> Fetched:
    """Fetch something; where that fails, skip with the reason, or fail if RING1_LINUX=required."""
    try:
        return get()
    except PackageError as error:
        if os.environ.get("RING1_LINUX") == "required":
            pytest.fail(f"RING1_LINUX=required, but {error}")
        pytest.skip(str(error))


def initrd_for(kernel: Kernel, folder: Path) -> Path:
    """Write the initramfs for a kernel."""
    path = folder / f"{kernel.release}.cpio"
    path.write_bytes(initramfs(kernel))
    return path


@dataclass
class Console:
    """Reads what the guest says; answers each awaited text, once, with a line or by a call."""

    steps: list[tuple[bytes, bytes | Callable[[], None]]]
    said: bytearray = field(default_factory=bytearray)
    _seen: int = 0
    _typed: bytearray = field(default_factory=bytearray)

    def write(self, data: bytes) -> None:
        """Take output."""
        self.said += data
        if self.steps and (at := self.said.find(self.steps[0][0], self._seen)) >= 0:
            awaited, answer = self.steps.pop(0)
            self._seen = at + len(awaited)
            if isinstance(answer, bytes):
                self._typed += answer
            else:
                answer()

    def poll(self) -> bytes:
        """Return what has been typed."""
        typed, self._typed = bytes(self._typed), bytearray()
        return typed

    @property
    def text(self) -> str:
        """All that the guest said."""
        return self.said.decode("utf-8", "replace")


@dataclass(frozen=True)
class Boot:
    """A kernel with its initramfs, to be run as often as one likes."""

    kernel: Kernel
    initrd: Path

    def vm(self, console: Console, /, **options: Any) -> VM:
        """Return a VM with somebody at its console."""
        given: dict[str, Any] = {
            "memory": "256M",
            "cmdline": QUICK,
            "max_instructions": MOST_INSTRUCTIONS,
            "dialects": ["kvm"],
            "wait_idle": lambda *_: False,  # idle time jumps
            "initrds": self.initrd,
            **options,
        }
        return VM(
            self.kernel.image, serial_output=console.write, poll_input=console.poll, **given
        )  # fmt: skip

    def say(self, *lines: str, **options: Any) -> tuple[str, Result]:
        """Boot, type each line at a prompt, then poweroff; return the output and the end."""
        steps: list[Any] = [(PROMPT, f"{line}\n".encode()) for line in (*lines, "poweroff")]
        console = Console(steps)
        with self.vm(console, **options) as vm:
            result = vm.run()
            assert vm.domain is None or not vm.domain.engine.breaches()
        assert not console.steps, console.text[-2000:]
        return console.text, result
