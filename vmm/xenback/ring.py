"""A back end's side of a shared ring (public/io/ring.h): its indexes are its own, not the guest's.

The page begins with four 32-bit words: requests produced, request index that wants a notification,
responses produced, response index that wants one.
"""

from typing import Any, Final

from vmm.pv.xen.shared import Shared

_MASK: Final = 0xFFFF_FFFF


class Ring:
    """One ring of one page."""

    def __init__(self, shared: Shared, size: int, entries: int, at: int) -> None:
        """`entries` slots of `size` bytes begin `at` bytes into the page."""
        self._shared: Final = shared
        self._size: Final = size
        self._entries: Final = entries
        self._at: Final = at
        self.page = self.reference = self.consumed = self.answered = 0

    def begin(self, page: int, reference: int) -> None:
        """Serve the ring of a page from its start."""
        self.page, self.reference, self.consumed, self.answered = page, reference, 0, 0

    def waiting(self, unanswered: int) -> list[bytes] | None:
        """Return the requests that wait; None if the guest's index makes no sense."""
        count = self._shared.read(self.page, 4) - self.consumed & _MASK
        if count > self._entries - unanswered:
            return None
        return [self._shared.load(self._slot(self.consumed + n), self._size) for n in range(count)]

    def ask_for_more(self) -> None:
        """Let the guest notify at its next request."""
        self._shared.write(self.page + 4, 4, self.consumed + 1 & _MASK)

    def answer(self, answers: list[bytes]) -> bool:
        """Put answers on the ring; whether the guest wants to be notified."""
        if not answers:
            return False
        for number, answer in enumerate(answers):
            self._shared.store(self._slot(self.answered + number), answer)
        self.answered = self.answered + len(answers) & _MASK
        self._shared.write(self.page + 8, 4, self.answered)
        wanted = self._shared.read(self.page + 12, 4)
        return (self.answered - wanted & _MASK) < len(answers)

    def _slot(self, index: int) -> int:
        return self.page + self._at + index % self._entries * self._size

    def save(self) -> list[int]:
        """Page, grant and indexes."""
        return [self.page, self.reference, self.consumed, self.answered]

    def restore(self, state: Any) -> None:
        """Take over what save() returned."""
        self.page, self.reference, self.consumed, self.answered = state
