"""A cable made of a stream socket: each frame behind its length, 32 bits, big-endian.

That is what QEMU's `-netdev socket` and `-netdev stream` speak too. One side listens, the other
connects; when the other side goes away the cable is unplugged, and a listener waits for the next.
"""

from typing import Final

from vmm.host.sources import Descriptor
from vmm.host.stream import Stream
from vmm.net.backend import FRAME_MAX, FRAME_MIN, Abilities, Port
from vmm.net.options import NetOptions

BACKLOG: Final = 4 << 20  # bytes for a peer that does not read; what comes then is dropped
_LENGTH: Final = 4


class SocketLink:
    """One end."""

    abilities = Abilities()

    def __init__(self, options: NetOptions) -> None:
        """Raises UsageError when the address is taken, or nobody listens there."""
        self.dropped = 0
        self._port: Port | None = None
        self._in = bytearray()
        option = f"--net {options.text!r}"
        if options.listen is not None:
            self.stream = Stream.listening(options.listen, option)
        else:
            assert options.connect is not None
            self.stream = Stream.connected(options.connect, option)

    def plug_in(self, port: Port) -> None:
        """Deliver to `port` from now on."""
        self._port = port

    def send(self, frame: bytes) -> None:
        """Put a frame on the wire: lost when nobody is there, or when the peer does not read."""
        if not self.stream.has_peer or len(self.stream.unsent) > BACKLOG:
            self.dropped += 1
            return
        self.stream.send(len(frame).to_bytes(_LENGTH, "big") + frame)

    def next_event(self) -> int | None:
        """Nothing happens by itself."""
        return None

    def fire(self) -> None:
        """Nothing is ever due."""

    def poll(self) -> bool:
        """Take in frames; a stream that is no sequence of frames unplugs the cable."""
        if self._port is None or not self.stream.accept():
            return False
        self.stream.flush()
        self._in += self.stream.receive()
        came = self._deliver_frames(self._port)
        if not self.stream.has_peer:
            self._in.clear()
        return came

    def descriptors(self) -> list[Descriptor]:
        """Return the peer's socket, or the one where it will knock."""
        return self.stream.descriptors()

    def expects(self) -> bool:
        """Whether a socket is open."""
        return bool(self.descriptors())

    def close(self) -> None:
        """Unplug, and remove a Unix socket made here."""
        self.stream.close()

    def _deliver_frames(self, port: Port) -> bool:
        at, came = 0, False
        while len(self._in) - at >= _LENGTH:
            size = int.from_bytes(self._in[at : at + _LENGTH], "big")
            if size > FRAME_MAX:
                self.stream.hang_up()
                break
            end = at + _LENGTH + size
            if end > len(self._in):
                break
            if size >= FRAME_MIN:
                port.deliver(bytes(self._in[at + _LENGTH : end]))
                came = True
            at = end
        del self._in[:at]
        return came
