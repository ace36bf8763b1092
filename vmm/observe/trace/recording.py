"""Recording one run: the file of records beside the trace that is asked for, and its conversion.

The records are on the disk from the moment they are made: whatever ends the run (the guest's crash,
Ctrl-C, a kill), the file NAME.ring holds all up to then. When the run ends in order it becomes the
trace and goes away; otherwise `ring1 trace convert` does that later.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from hwmodel.cpu.recording import HEADER_BYTES, SEGMENT_BYTES, Counters
from vmm.errors import UsageError
from vmm.observe.trace.convert import convert
from vmm.observe.trace.header import Header, Place
from vmm.observe.trace.taps import Taps, derive_in, virtio_names
from vmm.trace_options import TraceFile, TraceKind
from vmm.vm import VM

Say = Callable[[str], None]


class RecordFile:
    """The file that records go to; opened before the run, so that a bad path is found out then."""

    def __init__(self, target: TraceFile) -> None:
        """Raises UsageError with one line if nothing can be written there."""
        self.target: Final = target
        self.path: Final = _place_of(target)
        try:
            self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
            if not stat.S_ISREG(os.fstat(self.descriptor).st_mode):
                os.close(self.descriptor)
                raise OSError(errno.EINVAL, "not a regular file")
            if target.kind is not TraceKind.RECORDS:
                target.path.open("ab").close()  # can it be written when the run is over?
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UsageError(
                f"--trace {str(target.path)!r} cannot be written: {reason}; "
                "name a file in a writable folder"
            ) from None

    def close(self) -> None:
        """Give back what was allocated and not used."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Recording:
    """The tracing of one VM, from start to stop()."""

    def __init__(self, vm: VM, file: RecordFile, say: Say) -> None:
        """Begin. Raises UsageError when not even a first segment fits on the disk."""
        self.file: Final = file
        self._say: Final = say
        self._vm: Final = vm
        self._began: Final = vm.pcpu.account().as_dict()
        self._recorder: Final = vm.pcpu.recorder()
        segments = file.target.last // SEGMENT_BYTES
        try:
            os.pwrite(file.descriptor, header_of(vm).pack(), 0)
            for vcpu in vm.vcpus:
                self._recorder.name(vcpu.index, vcpu.vmcs.native)
            self._recorder.write_to(file.descriptor, segments)
        except OSError as error:
            self._recorder.stop()
            raise UsageError(
                f"--trace {str(file.target.path)!r} cannot be written: "
                f"{(error.strerror or str(error)).lower()}; make room or name another disk"
            ) from None
        self._taps: Final = Taps(vm, self._recorder.note(), plain=not derive_in(vm, self._recorder))

    def counters(self) -> Counters:
        """What was written and what was lost so far."""
        return self._recorder.counters()

    def stop(self) -> None:
        """End it, and make the trace of the records. What goes wrong is said, not raised."""
        self._taps.remove()
        self._recorder.settle()
        counters = self._recorder.counters()
        self._recorder.stop()
        with contextlib.suppress(OSError):  # the guest may have moved devices
            os.pwrite(self.file.descriptor, self._last_header(), 0)
        if counters.lost:
            self._say(
                f"--trace {str(self.file.target.path)!r}: {os.strerror(counters.error).lower()}; "
                f"the last {counters.lost} records of the run are missing, the guest went on"
            )
        _trim(self.file.descriptor, counters)
        self.file.close()
        if self.file.target.kind is not TraceKind.RECORDS:
            self._convert()

    def _last_header(self) -> bytes:
        """The guest may have moved devices; and the books are closed."""
        now = self._vm.pcpu.account().as_dict()
        spent = {name: cycles - self._began[name] for name, cycles in now.items()}
        return replace(header_of(self._vm), ledger=spent).pack()

    def _convert(self) -> None:
        target = self.file.target
        try:
            convert(self.file.path, target.path, target.kind)
        except OSError as error:
            self._say(
                f"--trace {str(target.path)!r} cannot be written: "
                f"{(error.strerror or str(error)).lower()}; the records are kept, make room and "
                f"run ring1 trace convert {self.file.path} {target.path}"
            )
        else:
            self.file.path.unlink(missing_ok=True)


def header_of(vm: VM) -> Header:
    """Return what a trace says of the machine."""
    config = vm.config
    places = [
        Place(bus.name, found.base, found.end - 1, found.device.name)
        for bus in (vm.board.ports, vm.board.memory)
        for found in bus.ranges()
    ]
    image = config.image.name if isinstance(config.image, Path) else ""
    return Header(
        vm.clock.frequency, config.cpus, image, str(config.technique), str(config.timing),
        tuple(virtio_names(vm)), tuple(places),
    )  # fmt: skip


def _place_of(target: TraceFile) -> Path:
    """Where the records go: beside the trace, or with temporary files if that is a device."""
    if target.kind is TraceKind.RECORDS:
        return target.path
    with contextlib.suppress(OSError):
        if not stat.S_ISREG(target.path.stat().st_mode):
            import tempfile

            return Path(tempfile.gettempdir()) / f"{target.path.name}.{os.getpid()}.ring"
    return target.path.with_name(target.path.name + ".ring")


def _trim(descriptor: int, counters: Counters) -> None:
    """Cut off segments that were allocated ahead; a ring that went round has none."""
    size = os.fstat(descriptor).st_size
    used = HEADER_BYTES + counters.segments * SEGMENT_BYTES
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, min(size, used))
