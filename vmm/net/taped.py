"""A network backend with a tape: in a run that is repeated, the cable carries what it carried."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from vmm.devices.saved import pack_items, unpack_items
from vmm.host.sources import Descriptor, HostSources
from vmm.host.tape import ask
from vmm.net.backend import Abilities, Backend, Port


class TapedBackend:
    """Between a card and its backend; None: there is only the tape."""

    def __init__(
        self, name: str, inner: Backend | None, sources: HostSources, abilities: Abilities
    ) -> None:
        """Without a tape it is the backend itself."""
        self._name: Final = name
        self._inner: Final = inner
        self._sources: Final = sources
        self._port: Port | None = None
        self._at_once: list[bytes] | None = None
        self.abilities = abilities

    def plug_in(self, port: Port) -> None:
        """Deliver to `port` from now on, whose `deliver` is a door."""
        self._port = port
        if self._inner is not None:
            self._inner.plug_in(replace(port, deliver=self._deliver))

    def _deliver(self, frame: bytes) -> None:
        if self._at_once is not None:
            self._at_once.append(frame)
        elif self._port is not None:
            self._port.deliver(frame)

    def send(self, frame: bytes) -> None:
        """Send a frame, or remember that it was sent; what answered at once is delivered."""
        tape = self._sources.tape
        if tape is None:
            if self._inner is not None:
                self._inner.send(frame)
            return
        answered = ask(tape, self._name, lambda: self._send(frame))
        for reply in unpack_items(answered) if answered else []:
            self._take(reply)

    def _send(self, frame: bytes) -> bytes:
        assert self._inner is not None
        self._at_once = []
        self._inner.send(frame)
        frames, self._at_once = self._at_once, None
        return pack_items(frames)

    def _take(self, frame: bytes) -> None:
        self._sources.doors[self._name](frame)

    def next_event(self) -> int | None:
        """With a tape the backend's own timers run where the host is looked at."""
        if self._inner is None or self._sources.tape is not None:
            return None
        return self._inner.next_event()

    def fire(self) -> None:
        """Do what is due."""
        if self._inner is not None and self._sources.tape is None:
            self._inner.fire()

    def poll(self) -> bool:
        """Take in what the host has."""
        return self._inner is not None and self._inner.poll()

    def descriptors(self) -> Sequence[Descriptor]:
        """Return what to wait for."""
        return self._inner.descriptors() if self._inner is not None else ()

    def expects(self) -> bool:
        """Whether a frame may still come."""
        return self._inner is not None and self._inner.expects()

    def close(self) -> None:
        """Let go of everything on the host."""
        if self._inner is not None:
            self._inner.close()
