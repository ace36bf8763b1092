"""Where bytes go: serial output, live, to stdout or a file; statistics to a file, atomically."""

import contextlib
import errno
import os
import select
import stat
from pathlib import Path
from typing import IO, TYPE_CHECKING

from vmm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


_HELD_MOST = 4096


class SerialSink:
    """Serial output to a file descriptor. A reader that went away is not an error.

    A line is written when it is complete; what is no whole line yet when ``flush()`` is called,
    which is to be many times a second: a guest writes bytes, and a system call for each takes
    longer than all else that is done about it.

    When the other side is gone, ``closed`` becomes True, ``on_closed`` is called once, and later
    bytes are dropped.
    """

    def __init__(self, descriptor: int, *, owned: bool = False) -> None:
        self.descriptor = descriptor
        self.closed = False
        self.on_closed: Callable[[], None] = lambda: None
        self._held = bytearray()
        self._owned = owned

    @classmethod
    def open(cls, path: Path | None) -> "SerialSink":
        """Open ``path`` for writing, or stdout for None; refuse a file that cannot be written."""
        if path is None:
            return cls(1)
        try:
            return cls(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), owned=True)
        except (OSError, ValueError) as error:
            raise UsageError(_unwritable("--serial-file", path, error)) from None

    def write(self, data: bytes) -> None:
        """Take ``data``; write it if a line ends with it."""
        self._held += data
        if data[-1:] == b"\n" or len(self._held) >= _HELD_MOST:
            self.flush()

    def flush(self) -> None:
        """Write all that was taken; wait for a slow reader, give up on one that is gone."""
        if not self._held:
            return
        view, self._held = memoryview(self._held), bytearray()
        while view and not self.closed:
            try:
                view = view[os.write(self.descriptor, view) :]
            except BlockingIOError:
                select.select([], [self.descriptor], [])
            except OSError as error:
                if error.errno not in (errno.EPIPE, errno.EBADF, errno.EIO):
                    raise UsageError(
                        f"serial output cannot be written: {error.strerror}; make room for it"
                    ) from None
                self.closed = True
                self.on_closed()

    def close(self) -> None:
        """Write what is left; close a file that was opened here."""
        try:
            self.flush()
        finally:
            if self._owned:
                os.close(self.descriptor)


class StatsFile:
    """A file that appears complete or not at all.

    It is opened before the run, so that a path which cannot be written is found out then.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary: Path | None = None
        try:
            if path.exists() and not stat.S_ISREG(path.stat().st_mode):
                self._file: IO[str] = path.open("w")  # a device or a pipe cannot be replaced
            else:
                self._file = self._open_beside()
        except (OSError, ValueError) as error:
            raise UsageError(_unwritable("--stats", path, error)) from None

    def commit(self, text: str) -> None:
        """Write ``text`` and give the file its name."""
        try:
            self._file.write(text)
            self._file.close()
            if self._temporary:
                self._temporary.replace(self._path)
                self._temporary = None
        except OSError as error:
            raise UsageError(_unwritable("--stats", self._path, error)) from None

    def close(self) -> None:
        """Drop what was not committed."""
        with contextlib.suppress(OSError):
            self._file.close()
        if self._temporary:
            self._temporary.unlink(missing_ok=True)

    def _open_beside(self) -> IO[str]:
        from tempfile import NamedTemporaryFile

        target = self._path.resolve()
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        mode = target.stat().st_mode if target.exists() else 0o666 & ~_umask()
        file = NamedTemporaryFile(  # noqa: SIM115 (lives until commit or close)
            "w", dir=target.parent, prefix=f".{target.name}.", delete=False
        )
        os.fchmod(file.fileno(), stat.S_IMODE(mode))
        self._path, self._temporary = target, Path(file.name)
        return file


def _umask() -> int:
    """Return the process's file mode mask; the only way to read it is to set it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _unwritable(option: str, path: Path, error: Exception) -> str:
    reason = (getattr(error, "strerror", None) or str(error)).lower()
    return f"{option} {str(path)!r} cannot be written: {reason}; name a file in a writable folder"
