"""The PV block back end: a disk image behind a ring of the guest's.

A request is taken off the ring when the guest notifies, and carried out when the medium would be
done with it, as virtio's disk does. Its data are granted pages; a front end that keeps its grants
("persistent") has them taken once.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

from vmm.devices.device import Clock, State
from vmm.pv.xen.abi import PAGE
from vmm.storage.image import Image, StorageError
from vmm.storage.overlay import media_of, restore_media
from vmm.virtio.blk_timing import Medium
from vmm.xenback.blkif import (
    DIRECT_MAX,
    ENTRIES,
    ENTRY_BYTES,
    INDIRECT_MAX,
    RING_AT,
    SECTOR,
    SEGMENT_BYTES,
    Answer,
    Operation,
    Request,
    Segment,
    segments,
)
from vmm.xenback.xenbus import Backend, Means

FIRST_NUMBER: Final = 202 << 8  # xvda; 16 minors each
KEPT_MAX: Final = 1056
"""Grants that stay taken; Linux's back end has the same limit for each ring."""
READ_ONLY_INFO: Final = 4  # VDISK_READONLY
_MASK: Final = 0xFFFF_FFFF


class BlockBackend(Backend):
    """One disk."""

    def __init__(
        self, number: int, image: Image, medium: Medium, means: Means, clock: Clock,
        reschedule: Callable[[], None],
    ) -> None:  # fmt: skip
        """Disk `number` of the guest: xvda, xvdb, ..."""
        self.image: Final = image
        self._medium: Final = medium
        self._clock: Final = clock
        self._reschedule: Final = reschedule
        self.ring = self.reference = self.consumed = self.answered = 0
        self.persistent = False
        self._kept: dict[int, int] = {}
        self._under_way: list[tuple[int, int, bytes]] = []  # (due, order, entry): heap
        self._order = 0
        device = FIRST_NUMBER + 16 * number
        front = {"virtual-device": str(device), "device-type": "disk"}
        back = {
            "dev": f"xvd{chr(ord('a') + number)}", "mode": "r" if image.read_only else "w",
            "type": "phy", "removable": "0", "feature-flush-cache": "1", "feature-persistent": "1",
            "feature-max-indirect-segments": str(INDIRECT_MAX), "max-ring-page-order": "0",
            "feature-discard": str(int(not image.read_only)), "discard-granularity": str(PAGE),
            "discard-alignment": "0", "discard-secure": "0",
        }  # fmt: skip
        super().__init__("vbd", device, means, front, back)

    # ---- the handshake ----

    def connect(self) -> bool:
        """Take ring and port, and say how large the disk is."""
        if self.store.tree.get(f"{self.front}/protocol", b"x86_64-abi") != b"x86_64-abi":
            return False
        reference = self.number("ring-ref")
        ring = self.grants.take(reference, writable=True)
        if ring is None:
            return False
        if not self.bind(self.number("event-channel"), self.kick):
            self.grants.give_back(reference, ring, writable=True)
            return False
        self.ring, self.reference, self.consumed, self.answered = ring, reference, 0, 0
        self.persistent = bool(self.number("feature-persistent"))
        self.tell({
            "sectors": self.image.size // SECTOR, "sector-size": SECTOR,
            "info": READ_ONLY_INFO if self.image.read_only else 0, "physical-sector-size": PAGE,
        })  # fmt: skip
        return True

    def disconnect(self) -> None:
        """Give the pages back; what was under way is forgotten."""
        self.grants.give_back(self.reference, self.ring, writable=True)
        for reference, page in self._kept.items():
            self.grants.give_back(reference, page, writable=True)
        self._kept.clear()
        self._under_way.clear()
        self.ring = 0

    # ---- requests come and go ----

    def kick(self) -> None:
        """Take what the guest has put on the ring; nonsense in the index ends the connection."""
        while self.port:
            waiting = self.shared.read(self.ring, 4) - self.consumed & _MASK
            if waiting > ENTRIES - len(self._under_way):
                self.give_up()
                return
            if not waiting:
                break
            for _ in range(waiting):
                self._take(self.shared.load(self._slot(self.consumed), ENTRY_BYTES))
                self.consumed = self.consumed + 1 & _MASK
            self.shared.write(self.ring + 4, 4, self.consumed + 1 & _MASK)
        self.fire()
        self._reschedule()

    def _take(self, entry: bytes) -> None:
        request, now = Request.of(entry), self._clock.now
        if request.operation == Operation.FLUSH:
            due = self._medium.flushed_at(now)
        else:
            size = sum(s.size for s in request.direct) if request.listed is None else (
                min(request.amount, INDIRECT_MAX) * PAGE
            )  # fmt: skip
            due = self._medium.done_at(now, max(0, size), write=request.operation != Operation.READ)
        self._order += 1
        heappush(self._under_way, (due, self._order, entry))

    def next_event(self) -> int | None:
        """Return when the first request is done."""
        return self._under_way[0][0] if self._under_way else None

    def fire(self) -> None:
        """Carry out what the medium is done with, and answer."""
        now, before = self._clock.now, self.answered
        while self._under_way and self._under_way[0][0] <= now:
            request = Request.of(heappop(self._under_way)[2])
            answer = request.answer(self._carry_out(request))
            self.shared.store(self._slot(self.answered), answer)
            self.answered = self.answered + 1 & _MASK
        if self.answered != before:
            self.shared.write(self.ring + 8, 4, self.answered)
            wanted = self.shared.read(self.ring + 12, 4)
            if self.answered - wanted & _MASK < self.answered - before & _MASK:
                self.ports.notify(self.port)

    def _slot(self, index: int) -> int:
        return self.ring + RING_AT + index % ENTRIES * ENTRY_BYTES

    # ---- one request ----

    def _carry_out(self, request: Request) -> Answer:
        image, operation = self.image, request.operation
        if request.listed is not None and operation not in (Operation.READ, Operation.WRITE):
            return Answer.ERROR
        if operation == Operation.FLUSH:
            return self._try(image.flush)
        if operation == Operation.DISCARD:
            return self._discard(request)
        if operation not in (Operation.READ, Operation.WRITE):
            return Answer.UNSUPPORTED
        reads, pieces = operation == Operation.READ, self._segments(request)
        if pieces is None or (image.read_only and not reads):
            return Answer.ERROR
        if not all(piece.first <= piece.last < PAGE // SECTOR for piece in pieces):
            return Answer.ERROR
        at, size = request.sector * SECTOR, sum(piece.size for piece in pieces)
        return self._move(at, pieces, reads=reads) if at + size <= image.size else Answer.ERROR

    def _segments(self, request: Request) -> list[Segment] | None:
        """Return the segments; None where there are too many, or their list is not granted."""
        if request.listed is None:
            return request.direct if request.amount <= DIRECT_MAX else None
        if request.amount > INDIRECT_MAX:
            return None
        page = self._map(request.listed, writable=False)
        if page is None:
            return None
        found = segments(self.shared.load(page, SEGMENT_BYTES * request.amount), request.amount)
        self._unmap(request.listed, page, writable=False)
        return found

    def _discard(self, request: Request) -> Answer:
        at, size = request.sector * SECTOR, request.amount * SECTOR
        if self.image.read_only or at + size > self.image.size:
            return Answer.ERROR
        return self._try(lambda: self.image.discard(at, size))

    def _move(self, offset: int, pieces: list[Segment], *, reads: bool) -> Answer:
        held: list[tuple[int, int]] = []
        for piece in pieces:
            page = self._map(piece.reference, writable=reads)
            if page is None:
                break
            held.append((piece.reference, page))
        answer = Answer.ERROR
        if len(held) == len(pieces):
            view = self.shared.view
            views = [
                view(page + piece.first * SECTOR, piece.size)
                for (_, page), piece in zip(held, pieces, strict=True)
            ]
            move = self.image.read if reads else self.image.write
            answer = self._try(lambda: move(offset, views))
        for reference, page in held:
            if reads:
                self.shared.wrote(page, PAGE)
            self._unmap(reference, page, writable=reads)
        return answer

    def _map(self, reference: int, *, writable: bool) -> int | None:
        kept = self._kept.get(reference)
        if kept is not None:
            return kept
        if self.persistent and len(self._kept) < KEPT_MAX:
            page = self.grants.take(reference, writable=True)
            if page is not None:
                self._kept[reference] = page
            return page
        return self.grants.take(reference, writable=writable)

    def _unmap(self, reference: int, page: int, *, writable: bool) -> None:
        if reference not in self._kept:
            self.grants.give_back(reference, page, writable=writable)

    def _try(self, action: Callable[[], None]) -> Answer:
        try:
            action()
        except StorageError:
            return Answer.ERROR
        return Answer.OKAY

    # ---- state ----

    def save(self) -> State:
        """The connection, and requests under way."""
        return {
            "version": 1, "port": self.port, "persistent": self.persistent,
            "ring": [self.ring, self.reference, self.consumed, self.answered],
            "kept": [number for pair in self._kept.items() for number in pair],
            "due": [number for due, order, _ in self._under_way for number in (due, order)],
            "entries": b"".join(entry for *_, entry in self._under_way),
            "medium": [self._medium.busy_until, self._order],
        } | self.save_media()  # fmt: skip

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        found: Any = state
        self.rebind(found["port"])
        self.persistent = found["persistent"]
        self.ring, self.reference, self.consumed, self.answered = found["ring"]
        self._kept = dict(zip(found["kept"][::2], found["kept"][1::2], strict=True))
        numbers, entries = found["due"], found["entries"]
        self._under_way = [
            (numbers[2 * n], numbers[2 * n + 1], entries[n * ENTRY_BYTES : (n + 1) * ENTRY_BYTES])
            for n in range(len(numbers) // 2)
        ]
        self._medium.busy_until, self._order = found["medium"]
        self.restore_media(state)

    def save_media(self) -> State:
        """Return what was written in snapshot mode: a reset keeps it, going back does not."""
        return media_of(self.image)

    def restore_media(self, state: State) -> None:
        """Take over what save_media() returned."""
        restore_media(self.image, state)
