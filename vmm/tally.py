"""Exits counted by name, and the last ones kept for messages: what every run knows about itself."""

from collections import Counter, deque
from typing import Final

from hwmodel.vmx.exit import Exit

KEPT: Final = 1024
SHOWN: Final = 5
_DEADLINE: Final = 0x100


class Tally:
    """Exits by reason; the newest `KEPT` in order. The engine's own stops are not exits."""

    __slots__ = ("_counts", "_names", "last")

    def __init__(self) -> None:
        """Start at nothing."""
        self._counts: Counter[int] = Counter()
        self._names: dict[int, str] = {}
        self.last: deque[Exit] = deque(maxlen=KEPT)

    def count(self, vmexit: Exit) -> None:
        """Book one exit."""
        reason = vmexit.reason
        if reason < _DEADLINE:
            self._counts[reason] += 1
            if reason not in self._names:
                self._names[reason] = vmexit.name
            self.last.append(vmexit)

    def by_name(self) -> dict[str, int]:
        """Return counts by the kernel's name."""
        return {self._names[reason]: count for reason, count in sorted(self._counts.items())}

    def last_as_text(self) -> tuple[str, ...]:
        """Return the last few exits as text, oldest first."""
        return tuple(repr(vmexit) for vmexit in list(self.last)[-SHOWN:])
