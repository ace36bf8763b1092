"""The network back end: public/io/netif.h, by a front end that knows nothing of it."""

import struct
from typing import Any

import pytest

from tests.vmm.xenback.front import FREE, PAGE, READING, WRITING, World
from vmm.net.backend import Abilities, Port
from vmm.xenback.netback import NetBackend

TX, RX, DATA = FREE, FREE + 1, FREE + 2
TX_REF, RX_REF, DATA_REF = 8, 9, 20
BLANK, MORE, EXTRA = 1, 4, 8
MAC = bytes.fromhex("525400123456")


class Cable:
    """Takes frames."""

    abilities = Abilities(segments=True, trusted=True)

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def plug_in(self, port: Port) -> None: ...
    def send(self, frame: bytes) -> None:
        self.sent.append(frame)

    def next_event(self) -> int | None:
        return None

    def fire(self) -> None: ...
    def poll(self) -> bool:
        return False

    def descriptors(self) -> list[Any]:
        return []

    def expects(self) -> bool:
        return False

    def close(self) -> None: ...


class Front:
    """A driver with 20 granted pages."""

    def __init__(self) -> None:
        self.world, self.cable = World(), Cable()
        self.backend = NetBackend(
            0, self.cable, MAC, 1500, self.world.means, self.world.clock, lambda: None
        )
        self.world.grant(TX_REF, TX)
        self.world.grant(RX_REF, RX)
        for number in range(19):
            self.world.grant(DATA_REF + number, DATA + number)
        for ring in (TX, RX):
            self.world.shared.store(ring * PAGE, struct.pack("<IIII", 0, 1, 0, 1))
        self.port = self.world.open_port()
        self.sent = self.posted = 0

    @property
    def state(self) -> str:
        return self.world.store.read(f"{self.backend.back}/state").decode()

    def connect(self, **values: object) -> "Front":
        offer = {
            "tx_ring_ref": TX_REF, "rx_ring_ref": RX_REF, "event_channel": self.port,
            "request_rx_copy": 1, "feature_sg": 1, **values, "state": 4,
        }  # fmt: skip
        self.world.says(self.backend.front, **offer)
        return self

    def send(self, *slots: bytes) -> list[tuple[int, int]]:
        """Put slots on the ring; return (identity, status) of what is answered in time."""
        first = self.sent
        for slot in slots:
            self.world.shared.store(TX * PAGE + 64 + self.sent % 256 * 12, slot.ljust(12, b"\0"))
            self.sent += 1
        self.world.shared.write(TX * PAGE, 4, self.sent)
        self.world.ports.send(self.port)
        return self.answers(first)

    def answers(self, first: int) -> list[tuple[int, int]]:
        self.world.clock.now += 1_000_000
        self.backend.fire()
        count = self.world.shared.read(TX * PAGE + 8, 4)
        places = (TX * PAGE + 64 + n % 256 * 12 for n in range(first, count))
        return [struct.unpack("<Hh", self.world.shared.load(at, 4)) for at in places]

    def post(self, *references: int) -> None:
        """Give pages to receive into."""
        for reference in references:
            at = RX * PAGE + 64 + self.posted % 256 * 8
            self.world.shared.store(at, struct.pack("<HHI", self.posted, 0, reference))
            self.posted += 1
        self.world.shared.write(RX * PAGE, 4, self.posted)
        self.world.ports.send(self.port)

    def received(self) -> list[tuple[int, int, int, int]]:
        """Identity, offset, flags, status of each answer so far."""
        count = self.world.shared.read(RX * PAGE + 8, 4)
        places = (RX * PAGE + 64 + n % 256 * 8 for n in range(count))
        return [struct.unpack("<HHHh", self.world.shared.load(at, 8)) for at in places]


def slot(reference: int, offset: int, size: int, flags: int = 0, identity: int = 5) -> bytes:
    return struct.pack("<IHHHH", reference, offset, flags, identity, size)


def gso(kind: int = 1, gso_type: int = 1) -> bytes:
    return struct.pack("<BBHBBH", kind, 0, 1448, gso_type, 0, 0)


def test_the_handshake_says_what_there_is() -> None:
    front = Front()
    assert front.state == "2"
    read = front.world.store.read
    assert read(f"{front.backend.front}/mac") == b"52:54:00:12:34:56"
    assert read(f"{front.backend.back}/feature-gso-tcpv4") == b"1"
    front.connect()
    assert front.state == "4"
    front.world.says(front.backend.front, state=6)
    assert (front.state, front.world.held()) == ("6", {})
    assert not front.world.flags(TX_REF) & (READING | WRITING)


@pytest.mark.parametrize(
    "offer",
    [{"tx_ring_ref": 3}, {"rx_ring_ref": "?"}, {"event_channel": 9}, {"request_rx_copy": 0}],
)
def test_an_offer_that_makes_no_sense_is_not_taken(offer: dict[str, object]) -> None:
    front = Front().connect(**offer)
    assert (front.state, front.world.held()) == ("2", {})


def test_a_frame_of_several_pieces_goes_out_whole() -> None:
    front = Front().connect()
    front.world.shared.store(DATA * PAGE + 100, b"A" * 60)
    front.world.shared.store((DATA + 1) * PAGE, b"B" * 40)
    found = front.send(slot(DATA_REF, 100, 100, MORE, 1), slot(DATA_REF + 1, 0, 40, 0, 2))
    assert found == [(1, 0), (2, 0)]
    assert front.cable.sent == [b"A" * 60 + b"B" * 40]
    assert front.world.ports.is_pending(front.port)
    assert front.world.held() == {TX: 1, RX: 1}


def test_a_blank_checksum_is_filled_in() -> None:
    front = Front().connect()
    ip = bytes.fromhex("45000021000040004011") + bytes(2) + bytes([10, 0, 2, 15, 10, 0, 2, 2])
    pseudo = 0x0A00 + 0x020F + 0x0A00 + 0x0202 + 17 + 13
    udp = struct.pack(">HHHH", 1000, 2000, 13, pseudo) + b"hello"
    frame = bytes(12) + b"\x08\x00" + ip + udp
    front.world.shared.store(DATA * PAGE, frame)
    assert front.send(slot(DATA_REF, 0, len(frame), BLANK)) == [(5, 0)]
    whole = struct.pack(">HHHH", 1000, 2000, 13, 0) + b"hello\0"
    total = pseudo + sum(struct.unpack(f">{len(whole) // 2}H", whole))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert front.cable.sent[0][40:42] == (total ^ 0xFFFF).to_bytes(2, "big")


@pytest.mark.parametrize(
    "slots",
    [
        [slot(500, 0, 60)], [slot(DATA_REF, 4090, 60)], [slot(DATA_REF, 0, 13)],
        [slot(DATA_REF, 0, 0)], [slot(DATA_REF, 0, 60, BLANK)],
        [slot(DATA_REF, 0, 60, MORE), slot(DATA_REF, 0, 60)],
        [slot(DATA_REF, 0, 60, EXTRA), gso(kind=9)], [slot(DATA_REF, 0, 60, EXTRA), gso(1, 7)],
        [slot(DATA_REF, 0, 4000, MORE)] + [slot(DATA_REF, 0, 100, MORE)] * 18
        + [slot(DATA_REF, 0, 100)],
    ],
)  # fmt: skip
def test_a_frame_that_makes_no_sense_is_refused(slots: list[bytes]) -> None:
    front = Front().connect()
    found = front.send(*slots)
    assert len(found) == len(slots)
    assert {status for _, status in found} <= {-1, 1}
    assert (front.cable.sent, front.state) == ([], "4")
    assert front.world.held() == {TX: 1, RX: 1}


@pytest.mark.parametrize("slots", [[slot(DATA_REF, 0, 60, MORE)], [slot(DATA_REF, 0, 60, EXTRA)]])
def test_a_frame_without_an_end_ends_the_connection(slots: list[bytes]) -> None:
    front = Front().connect()
    assert front.send(*slots) == []
    assert (front.state, front.world.held()) == ("6", {})


@pytest.mark.parametrize("ring", [TX, RX])
def test_an_index_from_nowhere_ends_the_connection(ring: int) -> None:
    front = Front().connect()
    front.world.shared.write(ring * PAGE, 4, 1000)
    front.world.ports.send(front.port)
    assert (front.state, front.world.held()) == ("6", {})


def test_what_comes_waits_for_room_and_is_spread_over_pages() -> None:
    front = Front().connect()
    large = bytes(range(250)) * 20  # 5,000 bytes: two pages
    front.backend.receive(b"x" * 60)
    front.backend.receive(large)
    front.world.clock.now += 1_000_000
    front.backend.fire()
    assert front.received() == []
    front.post(DATA_REF, DATA_REF + 1)
    assert front.received() == [(0, 0, 1, 60)]
    saved = front.backend.save()
    front.backend.restore(saved)
    front.post(999)
    assert front.received()[1:] == [(1, 0, 1 | MORE, 4096), (2, 0, 1, -1)]
    assert front.world.page(DATA, 60) == b"x" * 60
    assert front.world.page(DATA + 1) == large[:4096]
    assert front.world.held() == {TX: 1, RX: 1}
