"""A cable made of a stream socket: each frame behind its length, 32 bits, big-endian.

That is what QEMU's `-netdev socket` and `-netdev stream` speak too. One side listens, the other
connects; when the other side goes away the cable is unplugged, and a listener waits for the next.
"""

import contextlib
import select
import socket
from pathlib import Path
from typing import Final

from vmm.errors import UsageError
from vmm.host.sources import Descriptor
from vmm.net.backend import FRAME_MAX, FRAME_MIN, Abilities, Port
from vmm.net.options import Endpoint, NetOptions

BACKLOG: Final = 4 << 20  # bytes for a peer that does not read; what comes then is dropped
_CHUNK: Final = 1 << 18
_LENGTH: Final = 4


class SocketLink:
    """One end; `peer` is None while the cable is unplugged."""

    abilities = Abilities()

    def __init__(self, options: NetOptions) -> None:
        """Raises UsageError when the address is taken, or nobody listens there."""
        self._port: Port | None = None
        self.dropped = 0
        self._peer: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._bound: Path | None = None
        self._in = bytearray()
        self._out = bytearray()
        if options.listen is not None:
            self._listen(options.listen, options.text)
        else:
            assert options.connect is not None
            self._plug_in(_connected(options.connect, options.text))

    @property
    def address(self) -> Endpoint:
        """Where the listener listens: with the port that the host chose."""
        assert self._listener is not None
        if self._bound is not None:
            return Endpoint(path=str(self._bound))
        return Endpoint(*self._listener.getsockname()[:2])

    def plug_in(self, port: Port) -> None:
        """Deliver to `port` from now on."""
        self._port = port

    def send(self, frame: bytes) -> None:
        """Put a frame on the wire: lost when nobody is there, or when the peer does not read."""
        if self._peer is None or len(self._out) > BACKLOG:
            self.dropped += 1
            return
        self._out += len(frame).to_bytes(_LENGTH, "big") + frame
        self._flush()

    def next_event(self) -> int | None:
        """Nothing happens by itself."""
        return None

    def fire(self) -> None:
        """Nothing is ever due."""

    def poll(self) -> bool:
        """Take in frames; a stream that is no sequence of frames unplugs the cable."""
        if self._peer is None:
            self._accept()
        if self._peer is None or self._port is None:
            return False
        self._flush()
        self._read()
        return self._deliver_frames(self._port)

    def descriptors(self) -> list[Descriptor]:
        """Return the peer's socket, or the one where it will knock."""
        if self._peer is not None:
            events = select.POLLIN | (select.POLLOUT if self._out else 0)
            return [(self._peer.fileno(), events)]
        return [] if self._listener is None else [(self._listener.fileno(), select.POLLIN)]

    def close(self) -> None:
        """Unplug, and remove a Unix socket made here."""
        self._unplug()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            if self._bound is not None:
                self._bound.unlink(missing_ok=True)

    def _listen(self, at: Endpoint, text: str) -> None:
        family = socket.AF_UNIX if at.path else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            if at.path:
                self._listener.bind(at.path)
                self._bound = Path(at.path)
            else:
                self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self._listener.bind((at.host, at.port))
            self._listener.listen(1)
        except OSError as error:
            self.close()
            raise UsageError(
                f"--net {text!r}: {at} cannot be listened at: {_words(error)}; choose another"
            ) from None
        self._listener.setblocking(False)

    def _accept(self) -> None:
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._plug_in(self._listener.accept()[0])

    def _plug_in(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        if peer.family == socket.AF_INET:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peer = peer

    def _unplug(self) -> None:
        if self._peer is not None:
            self._peer.close()
        self._peer = None
        self._in.clear()
        self._out.clear()

    def _flush(self) -> None:
        if self._peer is None or not self._out:
            return
        try:
            sent = self._peer.send(self._out)
        except BlockingIOError:
            return
        except OSError:
            self._unplug()
            return
        del self._out[:sent]

    def _read(self) -> None:
        if self._peer is None:
            return
        try:
            data = self._peer.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._in += data
        else:
            self._unplug()

    def _deliver_frames(self, port: Port) -> bool:
        at, came = 0, False
        while len(self._in) - at >= _LENGTH:
            size = int.from_bytes(self._in[at : at + _LENGTH], "big")
            if size > FRAME_MAX:
                self._unplug()
                return came
            end = at + _LENGTH + size
            if end > len(self._in):
                break
            if size >= FRAME_MIN:
                port.deliver(bytes(self._in[at + _LENGTH : end]))
                came = True
            at = end
        del self._in[:at]
        return came


def _connected(to: Endpoint, text: str) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX if to.path else socket.AF_INET, socket.SOCK_STREAM)
    try:
        peer.connect(to.path or (to.host, to.port))
    except OSError as error:
        peer.close()
        raise UsageError(
            f"--net {text!r}: nobody can be reached at {to}: {_words(error)}; "
            "start the listening side first"
        ) from None
    return peer


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
