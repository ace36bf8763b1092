"""A stream socket that never blocks: one peer at a time, and a listener that waits for the next."""

import contextlib
import select
import socket
from pathlib import Path

from vmm.errors import UsageError
from vmm.host.endpoint import Endpoint
from vmm.host.sources import CHUNK, Descriptor


class Stream:
    """One end of a connection; make it with `listening` or `connected`."""

    def __init__(self) -> None:
        """Unconnected."""
        self.unsent = bytearray()
        self._peer: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._bound: Path | None = None
        self._late: socket.socket | None = None

    @classmethod
    def listening(cls, at: Endpoint, option: str) -> "Stream":
        """Listen. Raises UsageError, which begins with `option`, when that cannot be."""
        stream = cls()
        family = socket.AF_UNIX if at.path else socket.AF_INET
        listener = stream._listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            if at.path:
                listener.bind(at.path)
                stream._bound = Path(at.path)
            else:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((at.host, at.port))
            listener.listen(1)
        except OSError as error:
            stream.close()
            raise UsageError(
                f"{option}: {at} cannot be listened at: {_words(error)}; choose another"
            ) from None
        listener.setblocking(False)
        return stream

    @classmethod
    def connected(cls, to: Endpoint, option: str) -> "Stream":
        """Connect. Raises UsageError, which begins with `option`, when nobody listens there."""
        peer = socket.socket(socket.AF_UNIX if to.path else socket.AF_INET, socket.SOCK_STREAM)
        try:
            peer.connect(to.path or (to.host, to.port))
        except OSError as error:
            peer.close()
            raise UsageError(
                f"{option}: nobody can be reached at {to}: {_words(error)}; "
                "start the listening side first"
            ) from None
        stream = cls()
        stream._take(peer)
        return stream

    @property
    def address(self) -> Endpoint:
        """Where the listener listens."""
        assert self._listener is not None
        if self._bound is not None:
            return Endpoint(path=str(self._bound))
        return Endpoint(*self._listener.getsockname()[:2])

    @property
    def has_peer(self) -> bool:
        """Whether somebody is at the other end."""
        return self._peer is not None

    def accept(self) -> bool:
        """Take the next peer, if there is none and one has come; say whether there is one."""
        if self._peer is None and self._late is not None:
            late, self._late = self._late, None
            self._take(late)
        if self._peer is None and self._listener is not None:
            with contextlib.suppress(OSError):
                self._take(self._listener.accept()[0])
        return self._peer is not None

    def turn_away(self, data: bytes) -> bool:
        """While there is a peer: say `data` to the next one that comes, and hang up on it.

        If the peer has left by then, the next one waits for `accept` instead.
        """
        if self._peer is None or self._listener is None or self._late is not None:
            return False
        try:
            late = self._listener.accept()[0]
        except OSError:
            return False
        if self._has_left():
            self._late = late
            return False
        with late, contextlib.suppress(OSError):
            late.send(data)
        return True

    def _has_left(self) -> bool:
        """Whether the peer will say nothing more than what it has said."""
        assert self._peer is not None
        poller = select.poll()
        poller.register(self._peer.fileno(), select.POLLRDHUP)
        return bool(poller.poll(0))

    def send(self, data: bytes) -> None:
        """Send what the peer takes now; the rest stays in `unsent` for `flush`."""
        if self._peer is not None:
            self.unsent += data
            self.flush()

    def flush(self) -> None:
        """Send more of what is left."""
        if self._peer is None or not self.unsent:
            return
        try:
            sent = self._peer.send(self.unsent)
        except BlockingIOError:
            return
        except OSError:
            self.hang_up()
            return
        del self.unsent[:sent]

    def receive(self, most: int = CHUNK) -> bytes:
        """Return what has come; nothing, too, when the peer has gone."""
        if self._peer is None:
            return b""
        try:
            data = self._peer.recv(most)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self.hang_up()
        return data

    def descriptors(self, *, reading: bool = True) -> list[Descriptor]:
        """Return the peer's socket, or the one where it will knock."""
        if self._peer is not None:
            events = (select.POLLIN if reading else 0) | (select.POLLOUT if self.unsent else 0)
            return [(self._peer.fileno(), events)] if events else []
        return [] if self._listener is None else [(self._listener.fileno(), select.POLLIN)]

    def hang_up(self) -> None:
        """End the connection."""
        if self._peer is not None:
            self._peer.close()
        self._peer = None
        self.unsent.clear()

    def close(self) -> None:
        """Hang up, stop listening, and remove a Unix socket made here."""
        self.hang_up()
        if self._late is not None:
            self._late.close()
            self._late = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            if self._bound is not None:
                self._bound.unlink(missing_ok=True)

    def _take(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        if peer.family == socket.AF_INET:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peer = peer


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
