"""A byte channel with a tape: a run that is repeated says nothing twice to whoever listens."""

from typing import Final

from vmm.host.channel import Channel
from vmm.host.sources import HostSources
from vmm.host.tape import ask


class TapedChannel:
    """Between a port and its channel."""

    def __init__(self, name: str, inner: Channel, sources: HostSources) -> None:
        """Without a tape it is the channel itself."""
        self._name: Final = name
        self._inner: Final = inner
        self._sources: Final = sources
        self.bind: Final = inner.bind
        self.poll: Final = inner.poll
        self.descriptors: Final = inner.descriptors
        self.expects: Final = inner.expects
        self.close: Final = inner.close

    def write(self, data: bytes) -> None:
        """Say it, unless it has been said."""
        ask(self._sources.tape, self._name, lambda: self._say(data))

    def _say(self, data: bytes) -> bytes:
        self._inner.write(data)
        return b""
