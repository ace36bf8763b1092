"""The thread that waits beside a run: for keys, for signals, for the timeout.

The run may spend long in C, where Python's own signal handlers do not get a turn; so signals come
through a wake-up descriptor, and this thread tells the VM with ``VM.interrupt()``, which may be
called from any thread. Input is collected here and handed over by ``poll()``, never blocking.
A second signal means that the first did not help: the process ends at once.
"""

import os
import select
import signal
import stat
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING

from vmm.cli.flag import Flag
from vmm.cli.terminal import Input, KeyFilter, RawTerminal, classify
from vmm.host.sources import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vmm.host.sources import Descriptor

_STDIN = 0
_BUFFER = 64 << 10  # read no further ahead of the guest than this
_CHUNK = 4096
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_RECHECK_SECONDS = 0.05


class Attendant:
    """A context manager; set ``interrupt`` and ``wake`` after construction, before the run."""

    def __init__(
        self, timeout_seconds: float | None, flush: "Callable[[], None]" = lambda: None
    ) -> None:
        """`flush` is called whenever the run looks for input, or waits: it shows what is held."""
        self._flush = flush
        self.interrupt: Callable[[str], None] = lambda _reason: None
        self.wake: Callable[[], None] = lambda: None
        self.kind = classify(_STDIN)
        self._timeout = timeout_seconds
        self._deadline: float | None = None
        self._terminal: RawTerminal | None = None
        self._filter = KeyFilter(lambda: self.interrupt("interrupted"))
        self._received = bytearray()
        self._lock = threading.Lock()
        self._arrived = Flag()
        self._at_end = self.kind is Input.NONE
        self._signals = 0
        self._handlers: dict[signal.Signals, object] = {}
        self._closing = False

    @property
    def interactive(self) -> bool:
        """Tell whether a person sits at a terminal: idle time then passes in real time."""
        return self.kind is Input.TERMINAL

    def __enter__(self) -> "Attendant":
        self._thread = threading.Thread(target=self._attend, name="attendant", daemon=True)
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._preload()
        for number in _SIGNALS:
            if signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup, or a script's background job: not ours to answer
            self._handlers[number] = signal.signal(number, _handled_by_thread)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        if self.interactive:
            self._terminal = RawTerminal(_STDIN)
        if self._timeout is not None:
            self._deadline = time.monotonic() + self._timeout
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._closing = True
        os.write(self._wake_write, b"\0")
        self._thread.join()
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._restore_terminal()
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._arrived.close()

    def poll(self) -> bytes:
        """Return what has come in since the last call; never blocks."""
        self._flush()
        with self._lock:
            data, self._received = bytes(self._received), bytearray()
            self._arrived.clear()
        return data

    def wait(self, seconds: float, descriptors: "Sequence[Descriptor]" = ()) -> bool:
        """Sleep until input comes or a descriptor is ready, at most ``seconds``.

        For an idle guest at a terminal; says whether something came.
        """
        self._flush()
        return wait(seconds, [(self._arrived.descriptor, select.POLLIN), *descriptors])

    def _preload(self) -> None:
        """Read a regular file before the start: its bytes then come at no host-made moment."""
        if self.kind is Input.STREAM and stat.S_ISREG(os.fstat(_STDIN).st_mode):
            while chunk := os.read(_STDIN, _BUFFER):
                self._received += chunk
            self._at_end = True

    def _attend(self) -> None:
        while not self._closing:
            room = not self._at_end and len(self._received) < _BUFFER
            watched = [self._wake_read, *([_STDIN] if room else [])]
            try:
                ready, _, _ = select.select(watched, [], [], self._patience())
            except OSError:
                self._at_end = True  # standard input was closed under us
                continue
            if self._wake_read in ready:
                self._take_signals()
            if _STDIN in ready:
                self._take_input()
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._deadline = None
                self.interrupt("timeout")

    def _patience(self) -> float | None:
        """Return how long to wait: until the deadline, or until a full buffer may have room."""
        waits = [] if self._at_end or len(self._received) < _BUFFER else [_RECHECK_SECONDS]
        if self._deadline is not None:
            waits.append(max(0.0, self._deadline - time.monotonic()))
        return min(waits, default=None)

    def _take_signals(self) -> None:
        numbers = [number for number in os.read(self._wake_read, 64) if number in _SIGNALS]
        for _number in numbers:
            self._signals += 1
            if self._signals > 1:
                self._restore_terminal()
                os._exit(130)
            self.interrupt("interrupted")
            self._arrived.set()

    def _take_input(self) -> None:
        try:
            data = os.read(_STDIN, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._at_end = True
            if self.interactive:
                self.interrupt("interrupted")  # the terminal hung up
            return
        with self._lock:
            self._received += self._filter(data) if self.interactive else data
            self._arrived.set()
        self.wake()

    def _restore_terminal(self) -> None:
        if self._terminal:
            self._terminal.restore()
            self._terminal = None


def _handled_by_thread(_number: int, _frame: FrameType | None) -> None:
    """Keep the default action away; the wake-up descriptor carries the signal."""
