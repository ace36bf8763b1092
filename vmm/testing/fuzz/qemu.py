"""QEMU's processor as an oracle: the same image and the same batch, handed over as its module."""

import subprocess
import tempfile
from pathlib import Path
from shutil import which
from typing import Final

from vmm.errors import InternalError, UsageError
from vmm.testing.fuzz.machines import IMAGE, built
from vmm.testing.fuzz.record import HEADER, RECORD_BYTES

PROGRAM: Final = "qemu-system-x86_64"
_OPTIONS: Final = (
    "-accel tcg -cpu max,vendor=GenuineIntel -m 64 -display none -serial null -monitor none "
    "-no-reboot -device isa-debug-exit,iobase=0xf4,iosize=4"
).split()
_PATIENCE_SECONDS: Final = 120


class QemuMachine:
    """A QEMU for each batch."""

    name = "qemu"

    def __init__(self) -> None:
        """Find the program. Raises UsageError where there is none."""
        found = which(PROGRAM)
        if found is None:
            raise UsageError(f"{PROGRAM} is not installed; install it, or use --oracle host")
        self._program: Final = found

    def run(self, batch: bytes | bytearray) -> bytes:
        """Run a batch; its records come out of the debug console."""
        count = HEADER.unpack_from(batch)[0]
        with tempfile.TemporaryDirectory() as folder:
            module, output = Path(folder) / "batch", Path(folder) / "records"
            module.write_bytes(batch)
            command = [
                self._program, *_OPTIONS, "-kernel", str(built(IMAGE)), "-initrd", str(module),
                "-debugcon", f"file:{output}",
            ]  # fmt: skip
            try:
                subprocess.run(command, capture_output=True, timeout=_PATIENCE_SECONDS, check=False)
            except subprocess.TimeoutExpired:
                raise InternalError(f"{PROGRAM} did not end within {_PATIENCE_SECONDS} s") from None
            records = output.read_bytes() if output.exists() else b""
        if len(records) < count * RECORD_BYTES:
            raise InternalError(f"{PROGRAM} gave {len(records)} bytes of records; see {IMAGE}")
        return records[-count * RECORD_BYTES :]

    def close(self) -> None:
        """Nothing is held between batches."""
