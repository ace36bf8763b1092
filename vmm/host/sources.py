"""Where host input comes from, and the one way by which it reaches a device.

A run looks at its sources between turns and when the guest is idle: at points that the cycle count
alone decides. What is found there is the host's doing; it goes through a *door*, which writes it
down with the cycle at which it enters. A run is therefore a function of its image and its
`InputLog`. A run without sources never asks the host anything.
"""

import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from vmm.devices.device import Clock
from vmm.host.tape import Kind, Tape

Descriptor = tuple[int, int]
"""(file descriptor, events of select.poll() that are waited for)."""

CHUNK = 1 << 18
"""Bytes that are taken in at once."""

Door = Callable[[bytes], None]
"""Hands host input to a device."""


class HostSource(Protocol):
    """Something outside that may have input for the guest."""

    def poll(self) -> bool:
        """Take in what is there, without blocking; say whether the guest can notice."""

    def descriptors(self) -> Sequence[Descriptor]:
        """Return what to wait for; nothing when nothing is expected from outside."""

    def expects(self) -> bool:
        """Whether anything may still come: an idle guest is then not halted for good."""

    def close(self) -> None:
        """Let go of everything on the host."""


@dataclass(frozen=True, slots=True)
class Input:
    """Bytes that the host gave the guest, and the cycle at which they entered."""

    cycle: int
    source: str
    data: bytes


@dataclass(slots=True)
class InputLog:
    """Everything that came in, in order: what a replay has to give."""

    entries: list[Input] = field(default_factory=list)

    def note(self, cycle: int, source: str, data: bytes) -> None:
        """Write one input down."""
        self.entries.append(Input(cycle, source, bytes(data)))


class HostSources:
    """All sources of one VM."""

    def __init__(self, clock: Clock, tape: Tape | None = None) -> None:
        """`log` and `tape` are None until somebody wants them."""
        self._clock = clock
        self._sources: list[HostSource] = []
        self.log: InputLog | None = None
        self.tape = tape
        self.doors: dict[str, Door] = {}
        """What is behind each door, for what comes from a tape."""

    def add(self, source: HostSource) -> None:
        """Look at `source` from now on."""
        self._sources.append(source)

    def __bool__(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self._sources)

    def door(self, name: str, take: Door) -> Door:
        """Return `take`, which hears of input from `name`, with the log before it."""

        self.doors[name] = take

        def enter(data: bytes) -> None:
            if self.tape is not None:
                self.tape.note(Kind.INPUT, name, data)
            if self.log is not None:
                self.log.note(self._clock.now, name, data)
            take(data)

        return enter

    def poll(self) -> bool:
        """Take in what every source has; say whether the guest can notice."""
        came = False
        for source in self._sources:
            came |= source.poll()
        return came

    def descriptors(self) -> list[Descriptor]:
        """Return what all sources wait for."""
        return [pair for source in self._sources for pair in source.descriptors()]

    def expects(self) -> bool:
        """Whether anything may still come."""
        return any(source.expects() for source in self._sources)

    def close(self) -> None:
        """Close all sources."""
        for source in self._sources:
            source.close()
        self._sources.clear()


def wait(seconds: float, descriptors: Sequence[Descriptor]) -> bool:
    """Sleep until a descriptor is ready, at most `seconds`; say whether one is."""
    poller = select.poll()
    for number, events in descriptors:
        poller.register(number, events)
    return bool(poller.poll(max(0.0, seconds) * 1000))
