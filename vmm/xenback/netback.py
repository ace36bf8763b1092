"""The PV network back end: a cable behind two rings of the guest's.

Frames go out when the guest notifies; their slots are answered together a while later, and received
frames wait as long for the guest as those of virtio's card do (vmm.virtio.net has the times).
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from vmm.devices.device import Clock, State
from vmm.devices.saved import pack_items, unpack_items
from vmm.net.backend import FRAME_MAX, FRAME_MIN
from vmm.net.backend import Backend as Cable
from vmm.pv.xen.abi import PAGE
from vmm.virtio.net import RX_NS, TX_NS, WAITING_MAX
from vmm.xenback.netif import (
    ENTRIES,
    RING_AT,
    RX_BYTES,
    RX_REQUEST,
    RX_RESPONSE,
    TX_BYTES,
    TX_RESPONSE,
    Packet,
    RxFlag,
    Status,
    completed,
    packet,
)
from vmm.xenback.ring import Ring
from vmm.xenback.xenbus import Backend, BusState, Means

NEVER: Final = 1 << 62


class NetBackend(Backend):
    """One network card; the caller plugs `receive` into the cable."""

    ready = frozenset((BusState.CONNECTED,))

    def __init__(
        self, number: int, cable: Cable, mac: bytes, mtu: int, means: Means, clock: Clock,
        reschedule: Callable[[], None],
    ) -> None:  # fmt: skip
        """Card `number` of the guest; `mac` is 6 bytes."""
        self.cable: Final = cable
        self._clock: Final = clock
        self.rescheduled: Final = reschedule
        self.dropped = 0  # frames that found no room, or made no sense
        self._tx = Ring(means.shared, TX_BYTES, ENTRIES, RING_AT)
        self._rx = Ring(means.shared, RX_BYTES, ENTRIES, RING_AT)
        self._scatters = False
        self._waiting: deque[bytes] = deque()
        self._answers: list[bytes] = []
        self._rx_due = self._tx_due = NEVER
        shown = {"handle": str(number), "mac": mac.hex(":"), "mtu": str(mtu)}
        back = {
            **shown, "feature-rx-copy": "1", "feature-rx-flip": "0", "feature-sg": "1",
            "feature-gso-tcpv4": str(int(cable.abilities.segments)),
            "feature-split-event-channels": "0",
        }  # fmt: skip
        super().__init__("vif", number, means, shown, back)

    # ---- the handshake ----

    def connect(self) -> bool:
        """Take both rings and the port."""
        if not self.number("request-rx-copy"):
            return False
        pages: list[tuple[int, int]] = []
        for key in ("tx-ring-ref", "rx-ring-ref"):
            reference = self.number(key)
            page = self.grants.take(reference, writable=True)
            if page is not None:
                pages.append((reference, page))
        if len(pages) == 2 and self.bind(self.number("event-channel"), self.kick):
            for ring, (reference, page) in zip((self._tx, self._rx), pages, strict=True):
                ring.begin(page, reference)
            self._scatters = bool(self.number("feature-sg"))
            return True
        for reference, page in pages:
            self.grants.give_back(reference, page, writable=True)
        return False

    def disconnect(self) -> None:
        """Give the rings back; what was on its way is lost, as on a cable that is pulled."""
        for ring in (self._tx, self._rx):
            self.grants.give_back(ring.reference, ring.page, writable=True)
        self._waiting.clear()
        self._answers.clear()
        self._rx_due = self._tx_due = NEVER

    def kick(self) -> None:
        """There is something to send, or room for what was received."""
        self._send_all()
        if self.port and self._rx_due == NEVER:
            self._fill()
        self.rescheduled()

    # ---- from the guest ----

    def _send_all(self) -> None:
        while self.port:
            slots = self._tx.waiting(len(self._answers))
            if slots is None:
                self.give_up()
                return
            if not slots:
                return
            while slots:
                found = packet(slots, segments=self.cable.abilities.segments)
                if found is None:
                    self.give_up()
                    return
                self._send(found)
                self._tx.consumed += found.slots
                slots = slots[found.slots :]
            self._tx.ask_for_more()
            if self._tx_due == NEVER:
                self._tx_due = self._clock.now + self._clock.cycles_of_ns(TX_NS)

    def _send(self, found: Packet) -> None:
        frame = self._gather(found) if found.sound else None
        if frame is not None:
            frame = completed(frame, found.pieces[0].flags)
        if frame is None:
            self.dropped += 1
        else:
            self.cable.send(frame)
        status = Status.ERROR if frame is None else Status.OKAY
        first, *rest = (TX_RESPONSE.pack(p.identity, status) for p in found.pieces)
        null = TX_RESPONSE.pack(0, Status.NULL)
        self._answers += [first, *[null] * found.extras, *rest]

    def _gather(self, found: Packet) -> bytes | None:
        parts = []
        for piece in found.pieces:
            page = self.grants.take(piece.reference, writable=False)
            if page is None:
                return None
            parts.append(self.shared.load(page + piece.offset, piece.size))
            self.grants.give_back(piece.reference, page, writable=False)
        return b"".join(parts)

    # ---- to the guest ----

    def receive(self, frame: bytes) -> None:
        """Take a frame from the wire."""
        if not self.port or not FRAME_MIN <= len(frame) <= FRAME_MAX:
            return
        if len(self._waiting) >= WAITING_MAX or (len(frame) > PAGE and not self._scatters):
            self.dropped += 1
            return
        self._waiting.append(frame)
        if self._rx_due == NEVER:
            self._rx_due = self._clock.now + self._clock.cycles_of_ns(RX_NS)
            self.rescheduled()

    def _fill(self) -> None:
        """Give waiting frames to the guest while it has room."""
        requests = self._rx.waiting(0)
        if requests is None:
            self.give_up()
            return
        answers: list[bytes] = []
        while self._waiting:
            needed = -(-len(self._waiting[0]) // PAGE)
            if needed > len(requests) - len(answers):
                break
            frame, at = self._waiting.popleft(), len(answers)
            answers += self._store(frame, requests[at : at + needed])
        self._rx.consumed += len(answers)
        self._rx.ask_for_more()
        if self._rx.answer(answers):
            self.ports.notify(self.port)

    def _store(self, frame: bytes, requests: list[bytes]) -> list[bytes]:
        """Write a frame into the pages of as many requests as it needs; return the answers."""
        valid = RxFlag.DATA_VALIDATED if self.cable.abilities.trusted else RxFlag(0)
        answers = []
        for number, request in enumerate(requests):
            identity, _, reference = RX_REQUEST.unpack(request)
            part = frame[number * PAGE : (number + 1) * PAGE]
            more = RxFlag.MORE_DATA if number + 1 < len(requests) else RxFlag(0)
            page = self.grants.take(reference, writable=True)
            status = int(Status.ERROR)
            if page is not None:
                self.shared.store(page, part)
                self.grants.give_back(reference, page, writable=True)
                status = len(part)
            answers.append(RX_RESPONSE.pack(identity, 0, valid | more, status))
        return answers

    # ---- time and state ----

    def next_event(self) -> int | None:
        """Return when frames or answers reach the guest, or the cable has something due."""
        own, event = min(self._rx_due, self._tx_due), self.cable.next_event()
        if event is not None and event < own:
            return event
        return own if own < NEVER else None

    def fire(self) -> None:
        """Do what is due."""
        event, now = self.cable.next_event(), self._clock.now
        if event is not None and event <= now:
            self.cable.fire()
        if self._rx_due <= now:
            self._rx_due = NEVER
            self._fill()
        if self._tx_due <= now:
            self._tx_due = NEVER
            answers, self._answers = self._answers, []
            if self._tx.answer(answers):
                self.ports.notify(self.port)

    def save(self) -> State:
        """The connection and frames on their way; what the cable holds is outside the machine."""
        return {
            "version": 1, "port": self.port, "scatters": self._scatters,
            "tx": self._tx.save(), "rx": self._rx.save(), "due": [self._rx_due, self._tx_due],
            "waiting": pack_items(self._waiting), "answers": b"".join(self._answers),
        }  # fmt: skip

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        found: Any = state
        self.rebind(found["port"])
        self._scatters = found["scatters"]
        self._tx.restore(found["tx"])
        self._rx.restore(found["rx"])
        self._rx_due, self._tx_due = found["due"]
        self._waiting = deque(unpack_items(found["waiting"]))
        answers, size = found["answers"], TX_RESPONSE.size
        self._answers = [answers[n : n + size] for n in range(0, len(answers), size)]
