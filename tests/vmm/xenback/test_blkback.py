"""The block back end: public/io/blkif.h, by a front end that knows nothing of it."""

import struct
from pathlib import Path

import pytest

from tests.vmm.xenback.front import FREE, PAGE, READING, WRITING, World
from vmm.pv.xen.events import Status
from vmm.storage.opening import open_image
from vmm.virtio.blk_timing import TIMINGS, Medium
from vmm.xenback.blkback import BlockBackend

SECTORS = 64
RING, DATA = FREE, FREE + 1
RING_REF, DATA_REF, LIST_REF, MORE_REF = 8, 9, 10, 11
READ, WRITE, BARRIER, FLUSH, DISCARD, INDIRECT = 0, 1, 2, 3, 5, 6
OKAY, ERROR, UNSUPPORTED = 0, -1, -2


class Front:
    """Puts requests on the ring and takes the answers."""

    def __init__(self, path: Path, *, speed: str = "none", read_only: bool = False) -> None:
        self.world = World()
        self.file = path / "disk"
        self.file.write_bytes(bytes(n // 512 % 251 for n in range(512 * SECTORS)))
        image = open_image(self.file, kind="raw", read_only=read_only, snapshot=False)
        medium = Medium(TIMINGS[speed], self.world.clock)
        self.backend = BlockBackend(
            0, image, medium, self.world.means, self.world.clock, lambda: None
        )
        self.produced = 0
        for number, reference in enumerate((RING_REF, DATA_REF, LIST_REF, MORE_REF)):
            self.world.grant(reference, FREE + number)
        self.port = self.world.open_port()
        self.world.shared.store(RING * PAGE, struct.pack("<IIII", 0, 1, 0, 1))

    @property
    def state(self) -> str:
        return self.world.store.read(f"{self.backend.back}/state").decode()

    def connect(self, **values: object) -> "Front":
        offer = {"ring_ref": RING_REF, "event_channel": self.port, **values, "state": 3}
        self.world.says(self.backend.front, **offer)
        return self

    def put(self, entry: bytes) -> None:
        at = RING * PAGE + 64 + self.produced % 32 * 112
        self.world.shared.store(at, entry.ljust(112, b"\0"))
        self.produced += 1
        self.world.shared.write(RING * PAGE, 4, self.produced)

    def ask(self, entry: bytes) -> tuple[int, int, int]:
        """Make one request; return its answer: identity, operation, status."""
        self.put(entry)
        self.world.ports.send(self.port)
        assert self.world.shared.read(RING * PAGE + 8, 4) == self.produced
        at = RING * PAGE + 64 + (self.produced - 1) % 32 * 112
        found: tuple[int, int, int] = struct.unpack("<QBxh", self.world.shared.load(at, 12))
        return found


def request(kind: int, sector: int, *segments: tuple[int, int, int], identity: int = 7) -> bytes:
    head = struct.pack("<BBH4xQQ", kind, len(segments), 0, identity, sector)
    return head + b"".join(struct.pack("<IBBH", *segment, 0) for segment in segments)


def test_the_handshake_says_what_there_is(tmp_path: Path) -> None:
    front = Front(tmp_path)
    assert front.state == "2"
    front.connect()
    assert front.state == "4"
    read = front.world.store.read
    assert read(f"{front.backend.back}/sectors") == b"64"
    assert read(f"{front.backend.back}/feature-max-indirect-segments") == b"256"
    assert read(f"{front.backend.back}/feature-persistent") == b"1"
    front.world.says(front.backend.front, state=5)
    assert (front.state, front.world.held()) == ("5", {})
    assert not front.world.flags(RING_REF) & (READING | WRITING)


@pytest.mark.parametrize(
    "offer",
    [{"ring_ref": 3}, {"ring_ref": "x"}, {"event_channel": 77}, {"protocol": "x86_32-abi"}],
)
def test_an_offer_that_makes_no_sense_is_not_taken(
    tmp_path: Path, offer: dict[str, object]
) -> None:
    front = Front(tmp_path).connect(**offer)
    assert (front.state, front.world.held()) == ("2", {})


def test_data_go_to_the_granted_sectors_and_no_further(tmp_path: Path) -> None:
    front = Front(tmp_path).connect()
    assert front.ask(request(READ, 5, (DATA_REF, 2, 3))) == (7, READ, OKAY)
    page = front.world.page(DATA)
    assert page == bytes(1024) + b"\5" * 512 + b"\6" * 512 + bytes(2048)
    assert front.world.held() == {RING: 1}
    front.world.shared.store(DATA * PAGE, b"new!" * 1024)
    assert front.ask(request(WRITE, 8, (DATA_REF, 0, 0), identity=1 << 63)) == (1 << 63, WRITE, 0)
    assert front.ask(request(FLUSH, 0))[1:] == (FLUSH, OKAY)
    assert front.file.read_bytes()[8 * 512 : 10 * 512] == b"new!" * 128 + b"\11" * 512


@pytest.mark.parametrize(
    ("entry", "answer"),
    [
        (request(READ, SECTORS, (DATA_REF, 0, 0)), (READ, ERROR)),
        (request(READ, SECTORS - 1, (DATA_REF, 0, 1)), (READ, ERROR)),
        (request(READ, 1 << 63, (DATA_REF, 0, 0)), (READ, ERROR)),
        (request(READ, 0, (DATA_REF, 3, 2)), (READ, ERROR)),
        (request(READ, 0, (DATA_REF, 0, 8)), (READ, ERROR)),
        (request(READ, 0, (500, 0, 0)), (READ, ERROR)),
        (request(READ, 0, (99, 0, 0)), (READ, ERROR)),
        (request(WRITE, 0, (DATA_REF, 0, 0), (0, 0, 0)), (WRITE, ERROR)),
        (request(BARRIER, 0), (BARRIER, UNSUPPORTED)), (request(77, 0), (77, UNSUPPORTED)),
        (struct.pack("<BBH4xQQ", READ, 12, 0, 7, 0), (READ, ERROR)),
        (struct.pack("<BBH4xQQQ", DISCARD, 0, 0, 7, 60, 5), (DISCARD, ERROR)),
        (struct.pack("<BBH4xQQQ", DISCARD, 0, 0, 7, 0, 8), (DISCARD, OKAY)),
        (struct.pack("<BBH4xQQH2xI", INDIRECT, READ, 257, 7, 0, 0, LIST_REF), (READ, ERROR)),
        (struct.pack("<BBH4xQQH2xI", INDIRECT, READ, 1, 7, 0, 0, 500), (READ, ERROR)),
        (struct.pack("<BBH4xQQH2xI", INDIRECT, FLUSH, 1, 7, 0, 0, LIST_REF), (FLUSH, ERROR)),
        (struct.pack("<BBH4xQQH2xI", INDIRECT, DISCARD, 8, 7, 0, 0, LIST_REF), (DISCARD, ERROR)),
    ],
)  # fmt: skip
def test_a_request_that_makes_no_sense_is_answered_so(
    tmp_path: Path, entry: bytes, answer: tuple[int, int]
) -> None:
    front = Front(tmp_path).connect()
    before = front.file.read_bytes()
    assert front.ask(entry)[1:] == answer
    assert front.world.held() == {RING: 1}
    assert front.file.read_bytes() == before or entry[0] == DISCARD


def test_an_indirect_request_lists_its_segments_in_a_page(tmp_path: Path) -> None:
    front = Front(tmp_path).connect()
    listed = b"".join(struct.pack("<IBBH", *s, 0) for s in ((DATA_REF, 7, 7), (MORE_REF, 0, 1)))
    front.world.shared.store((FREE + 2) * PAGE, listed)
    entry = struct.pack("<BBH4xQQH2xI", INDIRECT, READ, 2, 3, 20, 0, LIST_REF)
    assert front.ask(entry) == (3, READ, OKAY)
    assert front.world.page(DATA, 512, 7 * 512) == bytes([20]) * 512
    assert front.world.page(FREE + 3, 1024) == bytes([21]) * 512 + bytes([22]) * 512


def test_grants_that_the_front_end_keeps_are_taken_once(tmp_path: Path) -> None:
    front = Front(tmp_path).connect(feature_persistent=1)
    for sector in (1, 2):
        assert front.ask(request(READ, sector, (DATA_REF, 0, 0)))[2] == OKAY
        assert front.world.page(DATA, 512) == bytes([sector]) * 512
        assert front.world.held() == {RING: 1, DATA: 1}
        assert front.world.flags(DATA_REF) & (READING | WRITING) == READING | WRITING
    front.world.says(front.backend.front, state=6)
    assert (front.state, front.world.held(), front.world.flags(DATA_REF)) == ("6", {}, 1)


def test_a_disk_that_may_only_be_read(tmp_path: Path) -> None:
    front = Front(tmp_path, read_only=True).connect()
    assert front.world.store.read(f"{front.backend.back}/info") == b"4"
    assert front.ask(request(WRITE, 0, (DATA_REF, 0, 0)))[2] == ERROR


def test_a_producer_index_from_nowhere_ends_the_connection(tmp_path: Path) -> None:
    front = Front(tmp_path).connect()
    front.world.shared.write(RING * PAGE, 4, 33)
    front.world.ports.send(front.port)
    assert (front.state, front.world.held()) == ("6", {})


def test_a_request_takes_as_long_as_the_medium(tmp_path: Path) -> None:
    front = Front(tmp_path, speed="ssd").connect()
    front.put(request(READ, 0, (DATA_REF, 0, 7)))
    front.world.ports.send(front.port)
    due = front.backend.next_event()
    assert due is not None
    assert due >= TIMINGS["ssd"].read_ns
    assert front.world.shared.read(RING * PAGE + 8, 4) == 0
    saved = front.backend.save()
    front.world.clock.now = due
    front.backend.restore(saved)
    front.backend.fire()
    assert front.world.shared.read(RING * PAGE + 8, 4) == 1
    assert front.world.ports.is_pending(front.port)


def test_a_port_that_was_closed_and_is_anothers_stays_that_ones(tmp_path: Path) -> None:
    front = Front(tmp_path).connect()
    front.world.ports.close(front.port)
    assert front.world.open_port() == front.port
    heard: list[int] = []
    front.world.ports.channels[front.port].status = Status.INTERDOMAIN
    front.world.ports.listeners[front.port] = lambda: heard.append(1)
    front.world.says(front.backend.front, state=6)
    front.world.ports.send(front.port)
    assert heard == [1]


def test_a_port_that_is_open_for_another_domain_is_not_taken(tmp_path: Path) -> None:
    front = Front(tmp_path)
    front.world.ports.channels[front.port].domain = 1
    assert (front.connect().state, front.world.held()) == ("2", {})
