"""The tape of a run: everything that came from the host, in order, and when.

With its tape a run is a function of its image. What comes by itself (keys, frames) is an *input*:
it enters at a moment of the run. What the guest asked for (a file's content, a router's reply) is
an *answer*: it comes in the middle of what the guest does, and needs no moment. Behind the end of
the tape the host is asked, and the tape grows, unless it is closed: then nothing more comes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

Key = tuple[int, int, int]
"""A moment of a run; `vmm.debug.moment` says what it counts."""


class Kind(StrEnum):
    """What an entry is."""

    INPUT = "input"
    ANSWER = "answer"
    END = "end"
    """Somebody on the host ended the run; the data is the reason."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that came from `source`; `at` is a moment, of an answer the last one known."""

    kind: Kind
    at: Key
    source: str
    data: bytes


class Tape:
    """Entries, and how far the present is along them."""

    def __init__(self, entries: list[Entry] | None = None, *, closed: bool = False) -> None:
        """`closed`: nothing comes but what is on it."""
        self.entries: list[Entry] = entries or []
        self.closed = closed
        self.position = 0
        self.now: Callable[[], Key] = lambda: (0, 0, 0)
        self.written: Callable[[Entry], None] = lambda _entry: None
        """Hears of each new entry: a recording."""

    @property
    def is_playing(self) -> bool:
        """Whether what comes is on the tape, and the host is not asked."""
        return self.closed or self.position < len(self.entries)

    def note(self, kind: Kind, source: str, data: bytes) -> None:
        """Something came: put it at the end."""
        entry = Entry(kind, self.now(), source, bytes(data))
        self.entries.append(entry)
        self.position = len(self.entries)
        self.written(entry)

    def peek(self) -> Entry | None:
        """Return what comes next on the tape, None at its end."""
        return self.entries[self.position] if self.position < len(self.entries) else None

    def take(self) -> Entry:
        """Go past the next entry."""
        self.position += 1
        return self.entries[self.position - 1]

    def answer(self, source: str) -> bytes:
        """Return what the host answered here; nothing where the run is not the recorded one."""
        entry = self.peek()
        if entry is None or entry.kind is not Kind.ANSWER or entry.source != source:
            return b""
        return self.take().data

    def cut(self) -> None:
        """The run goes another way from here."""
        del self.entries[self.position :]


def ask(tape: Tape | None, source: str, host: Callable[[], bytes]) -> bytes:
    """Ask the host, once: what it answered is on the tape when the run is repeated."""
    if tape is None:
        return host()
    if tape.is_playing:
        return tape.answer(source)
    data = host()
    tape.note(Kind.ANSWER, source, data)
    return data
