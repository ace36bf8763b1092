"""The machines that run batches: ring1 itself, and the host processor in a child process."""

import mmap
import os
import select
import signal
import struct
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Protocol, Self

from vmm.errors import InternalError, UsageError
from vmm.testing.fuzz.record import (
    HEADER,
    MOST,
    RECORD_BYTES,
    RECORDS_OFFSET,
    records_of,
)
from vmm.vm import VM

BATCH_AT: Final = 0x100_0000
BATCH_BYTES: Final = RECORDS_OFFSET + MOST * RECORD_BYTES
IMAGE: Final = "oracle_sequences.elf"
RUNNER: Final = "host_runner"
MOST_INSTRUCTIONS: Final = 2_000_000_000
PATIENCE_SECONDS: Final = 20
_COMMAND: Final = struct.Struct("<II")
_ANSWER_BYTES: Final = 4


class Machine(Protocol):
    """Something that runs a batch and returns its records as they ended."""

    name: str

    def run(self, batch: bytes | bytearray) -> bytes:
        """Run; return the records."""

    def close(self) -> None:
        """Give back what it holds."""


def built(name: str) -> Path:
    """Return a file of the normal build. Raises UsageError where it is missing."""
    path = Path(str(files("vmm") / "images" / name))
    if not path.exists():
        raise UsageError(f"{name} has not been built; run make build (it needs gcc and make)")
    return path


class Ring1Machine:
    """A guest that runs batches: it halts, finds a batch in memory, and halts again."""

    name = "ring1"

    def __init__(self, **options: Any) -> None:
        """Boot it; `options` are those of `ring1 run`."""
        self._vm: Final = VM(
            built(IMAGE), memory="64M", max_instructions=MOST_INSTRUCTIONS, **options
        )
        self._vm.run()
        self._booted: Final = self._vm.snapshot()

    def run(self, batch: bytes | bytearray) -> bytes:
        """Run a batch. Raises InternalError where the guest itself goes wrong."""
        vm, count = self._vm, HEADER.unpack_from(batch)[0]
        vm.restore(self._booted)
        vm.memory.write(BATCH_AT, bytes(batch))
        vm.vcpus[0].kick()
        result = vm.run()
        if result.reason != "halted":
            raise InternalError(f"a batch ended by {result.reason}: {result.message}")
        size = RECORDS_OFFSET + count * RECORD_BYTES
        return records_of(vm.memory.read(BATCH_AT, size), count)

    def close(self) -> None:
        """Free the VM."""
        self._vm.close()


class HostMachine:
    """The processor that this program runs on, by a child that nobody trusts.

    A sequence on which the child dies leaves its record's `ran` word at "started"; a new child goes
    on behind it. `deaths` says of what, by the number in the batch.
    """

    name = "host"

    def __init__(self, patience: float = PATIENCE_SECONDS) -> None:
        """Start the child; a batch that takes longer than `patience` seconds has hung."""
        if os.uname().machine != "x86_64":
            raise UsageError(f"this host is {os.uname().machine}, not x86-64; use another oracle")
        self._runner: Final = built(RUNNER)
        self._patience: Final = patience
        self._fd: Final = os.memfd_create("batch")
        os.ftruncate(self._fd, BATCH_BYTES)
        self._memory: Final = mmap.mmap(self._fd, BATCH_BYTES)
        self._child: subprocess.Popen[bytes] | None = None
        self.deaths: dict[int, str] = {}

    def run(self, batch: bytes | bytearray) -> bytes:
        """Run a batch, whatever becomes of the child; `deaths` is this batch's."""
        count, self.deaths = HEADER.unpack_from(batch)[0], {}
        self._memory[: len(batch)] = bytes(batch)
        first = 0
        while first < count and (how := self._ask(first, count - first)) is not None:
            died_in = self._started(first, count)
            self.deaths[died_in] = how
            first = died_in + 1
        return records_of(self._memory[:], count)

    def _ask(self, first: int, count: int) -> str | None:
        """Let the child run records; None if it lives, else how it ended."""
        child = self._living()
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(_COMMAND.pack(first, count))
            child.stdin.flush()
        except BrokenPipeError:
            return self._how_it_ended("exited")
        if not select.select([child.stdout], [], [], self._patience)[0]:
            return self._how_it_ended(f"hung for {self._patience:g} s")
        if len(child.stdout.read(_ANSWER_BYTES)) < _ANSWER_BYTES:
            return self._how_it_ended("exited")
        return None

    def _living(self) -> "subprocess.Popen[bytes]":
        if self._child is None:
            self._child = subprocess.Popen(
                [self._runner, str(self._fd)],
                pass_fds=[self._fd],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        return self._child

    def _how_it_ended(self, what: str) -> str:
        child, self._child = self._child, None
        assert child is not None
        if what.startswith("hung"):
            child.kill()
        child.communicate()
        code = child.returncode
        if what.startswith("hung"):
            return what
        return f"died by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"

    def _started(self, first: int, count: int) -> int:
        """The record in which the child stopped; the first one if it did not get so far."""
        for index in range(first, count):
            at = RECORDS_OFFSET + index * RECORD_BYTES + 12
            if self._memory[at] == 1:
                return index
        return first

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None
        self._memory.close()
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
