"""The network device: frames, headers, buffers, filter, and what a bad driver gets."""

import random
import struct

import pytest

from tests.vmm.virtio.driven import Driven
from tests.vmm.virtio.rings import Driver, PackedDriver, SplitDriver
from vmm.net.backend import Abilities, Port
from vmm.virtio.features import Status, bits
from vmm.virtio.net import CONTROL, RX, TX, Net, NetFeature
from vmm.virtio.net_filter import TABLE_MAX
from vmm.virtio.net_header import with_checksum

MAC = bytes.fromhex("525400123456")
OTHER = bytes.fromhex("525400999999")
KINDS = pytest.mark.parametrize("kind", [SplitDriver, PackedDriver])


class Cable:
    """A backend that remembers what was sent."""

    def __init__(self, *, segments: bool = False, trusted: bool = False) -> None:
        self.abilities = Abilities(segments, trusted)
        self.sent: list[bytes] = []

    def plug_in(self, port: Port) -> None:
        self.port = port

    def send(self, frame: bytes) -> None:
        self.sent.append(frame)

    def next_event(self) -> int | None:
        return None

    def fire(self) -> None: ...

    def poll(self) -> bool:
        return False

    def descriptors(self) -> list[tuple[int, int]]:
        return []

    def expects(self) -> bool:
        return False

    def close(self) -> None: ...


class Card(Driven):
    """A driven network card."""

    def __init__(
        self,
        cable: Cable | None = None,
        *,
        features: int = -1,
        kind: type[Driver] = SplitDriver,
        mtu: int = 1500,
    ) -> None:
        self.cable = cable or Cable()
        packed = kind is PackedDriver
        super().__init__(
            lambda context: Net("net0", context, self.cable, mac=MAC, mtu=mtu, packed=packed),
            features=features,
            kind=kind,
        )

    @property
    def net(self) -> Net:
        assert isinstance(self.device, Net)
        return self.device

    def arrive(self, frame: bytes) -> None:
        self.net.receive(frame)
        self.let_time_pass()

    def transmit(self, frame: bytes, header: bytes = bytes(12)) -> None:
        self.request(TX, [header, frame])

    def command(self, data: bytes) -> int:
        answer = self.ask(CONTROL, [data[:2], data[2:]] if len(data) > 2 else [data], 1)
        return int(answer[0])


def frame(to: bytes = MAC, size: int = 100) -> bytes:
    return to + OTHER + b"\x08\x00" + random.Random(size).randbytes(size - 14)


def header(flags: int = 0, gso: int = 0, start: int = 0, offset: int = 0) -> bytes:
    return struct.pack("<BBHHHHH", flags, gso, 0, 1460, start, offset, 0)


def internet_sum(data: bytes) -> int:
    """RFC 1071 as it is written: add 16-bit words, fold the carries."""
    data += bytes(len(data) & 1)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@KINDS
def test_frames_go_out_as_they_are(kind: type[Driver]) -> None:
    card = Card(kind=kind)
    frames = [frame(size=size) for size in (14, 60, 61, 1514)]
    for data in frames:
        card.transmit(data)
    assert card.cable.sent == frames
    assert card.drivers[TX].used() == []  # buffers go back together, a while later
    assert card.net.next_event() == card.clock.cycles_of_ns(150_000)
    state = card.net.save()
    card.net.restore(state)
    card.let_time_pass()
    assert len(card.drivers[TX].used()) == 4
    assert card.interrupts == [TX]


@KINDS
@pytest.mark.parametrize("size", [60, 1514, 5000])
def test_a_frame_is_spread_over_merged_buffers(kind: type[Driver], size: int) -> None:
    card = Card(kind=kind)
    places = [card.request(RX, [], (700, 324))[:2] for _ in range(6)]
    data = frame(size=size)
    card.arrive(data)
    used = card.drivers[RX].used()
    got = b""
    for (first, second), (_, written) in zip(places, used, strict=False):
        got += (card.memory.ram.read(first, 700) + card.memory.ram.read(second, 324))[:written]
    assert got[12:] == data
    assert struct.unpack_from("<H", got, 10)[0] == len(used) == -(-(size + 12) // 1024)
    assert card.interrupts == [RX]


def test_frames_wait_for_buffers_and_for_the_latency() -> None:
    card = Card()
    card.net.receive(frame())
    due = card.net.next_event()
    assert due == card.clock.cycles_of_ns(20_000)
    card.request(RX, [], (2048,))
    assert not card.drivers[RX].used()  # latency is not over
    card.let_time_pass()
    assert len(card.drivers[RX].used()) == 1
    card.arrive(frame(size=200))
    card.arrive(frame(size=201))
    assert card.interrupts == [RX]
    card.request(RX, [], (2048,))
    assert [written for _, written in card.drivers[RX].used()] == [212]
    card.request(RX, [], (2048,))
    assert [written for _, written in card.drivers[RX].used()] == [213]


def test_what_comes_within_the_latency_takes_one_interrupt() -> None:
    card = Card()
    for _ in range(3):
        card.request(RX, [], (2048,))
    for size in (60, 61, 62):
        card.net.receive(frame(size=size))
    card.let_time_pass()
    assert card.interrupts == [RX]
    assert [written for _, written in card.drivers[RX].used()] == [72, 73, 74]


def test_without_merging_a_frame_that_does_not_fit_is_dropped_and_its_buffer_kept() -> None:
    card = Card(features=~bits(NetFeature.MRG_RXBUF))
    card.request(RX, [], (200,))
    card.arrive(frame(size=400))
    assert card.net.dropped == 1
    card.arrive(frame(size=100))
    assert [written for _, written in card.drivers[RX].used()] == [112]


def test_frames_without_buffers_do_not_pile_up_for_ever() -> None:
    card = Card()
    for _ in range(2000):
        card.net.receive(frame())
    assert card.net.dropped == 2000 - 1024


@pytest.mark.parametrize("size", [60, 61, 1514, 64000])
@pytest.mark.parametrize("seed", range(3))
def test_a_partial_checksum_is_completed(size: int, seed: int) -> None:
    """The receiver's rule: the sum over everything, the checksum included, is all ones."""
    data = bytearray(random.Random(seed).randbytes(size))
    start, offset = 34, 16
    pseudo_header = random.Random(seed + 10).randrange(0x10000)
    data[50:52] = pseudo_header.to_bytes(2, "big")
    card = Card()
    card.transmit(bytes(data), header(1, 0, start, offset))
    sent = card.cable.sent[0]
    assert sent[:50] == data[:50]
    assert sent[52:] == data[52:]
    # The field held the pseudo header's sum, which the receiver adds by itself.
    total = internet_sum(sent[start:]) + pseudo_header
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF


@pytest.mark.parametrize(("start", "offset"), [(60, 0), (50, 9), (0xFFFE, 0xFFFF), (30, 3)])
def test_a_checksum_outside_the_frame_drops_it(start: int, offset: int) -> None:
    card = Card()
    card.transmit(bytes(60), header(1, 0, start, offset))
    assert card.cable.sent == []
    assert card.net.dropped == 1
    assert card.net.live
    assert with_checksum(bytes(60), start, offset) is None


def test_large_segments_are_offered_where_the_backend_takes_them() -> None:
    tso = bits(NetFeature.HOST_TSO4)
    assert not Card().net.features & tso
    card = Card(Cable(segments=True))
    assert card.net.features & tso
    card.transmit(bytes(60000), header(1, 1, 34, 16))
    assert len(card.cable.sent[0]) == 60000
    plain = Card(Cable(segments=True), features=~tso)
    plain.transmit(bytes(60000), header(1, 1, 34, 16))
    assert plain.cable.sent == []
    card.transmit(bytes(60000), header(1, 3, 34, 8))  # UDP fragmentation was not offered
    assert len(card.cable.sent) == 1


@pytest.mark.parametrize(
    ("trusted", "features", "flags"),
    [(True, -1, 2), (False, -1, 0), (True, ~bits(NetFeature.GUEST_CSUM), 0)],
)
def test_data_valid_is_said_where_it_is_true_and_wanted(
    trusted: bool, features: int, flags: int
) -> None:
    card = Card(Cable(trusted=trusted), features=features)
    gpa = card.request(RX, [], (2048,))[0]
    card.arrive(frame())
    assert card.memory.ram.read(gpa, 12) == struct.pack("<BBHHHHH", flags, 0, 0, 0, 0, 0, 1)


def test_configuration() -> None:
    card = Card(mtu=9000)
    assert card.net.read_config(0, 6).to_bytes(6, "little") == MAC
    assert card.net.read_config(6, 2) == 1  # link up
    assert card.net.read_config(10, 2) == 9000
    assert card.net.features & bits(NetFeature.MTU)
    assert not Card().net.features & bits(NetFeature.MTU)


BROADCAST, GROUP = b"\xff" * 6, bytes.fromhex("333300000001")


def takes(card: Card, *to: bytes) -> list[bool]:
    return [card.net.filter.takes(frame(address)) for address in to]


def test_the_filter_obeys_the_control_queue() -> None:
    card = Card()
    assert takes(card, MAC, OTHER, BROADCAST, GROUP) == [True] * 4
    assert card.command(bytes((0, 0, 0))) == 0  # not promiscuous any more
    assert takes(card, MAC, OTHER, BROADCAST, GROUP) == [True, False, True, False]
    table = struct.pack("<I", 1) + OTHER + struct.pack("<I", 1) + GROUP
    assert card.command(bytes((1, 0)) + table) == 0
    assert takes(card, MAC, OTHER, BROADCAST, GROUP) == [True] * 4
    for mode, missing in ((3, GROUP), (4, MAC), (5, BROADCAST)):
        assert card.command(bytes((0, mode, 1))) == 0
        assert takes(card, missing) == [False]
        assert card.command(bytes((0, mode, 0))) == 0
    assert card.command(bytes((1, 1)) + bytes.fromhex("5254000000aa")) == 0
    assert card.net.read_config(0, 6).to_bytes(6, "little").hex() == "5254000000aa"
    assert takes(card, bytes.fromhex("5254000000aa"), MAC) == [True, False]
    card.net.receive(frame(MAC))
    assert card.net.next_event() is None


@pytest.mark.parametrize(
    "command", ["", "00", "0009", "000000ff", "0100", "0100ffffffff", "0101ff"]
)
def test_commands_without_sense_are_refused(command: str) -> None:
    card = Card()
    assert card.ask(CONTROL, [bytes.fromhex(command) or b"\7"], 1) == b"\1"
    assert card.net.live


def test_a_table_that_is_too_long_takes_all() -> None:
    card = Card()
    card.command(bytes((0, 0, 0)))
    many = struct.pack("<I", TABLE_MAX + 1) + bytes(6 * (TABLE_MAX + 1)) + bytes(4)
    assert card.command(bytes((1, 0)) + many) == 0
    assert takes(card, OTHER, GROUP) == [True, False]


def test_a_frame_without_a_header_breaks_the_device() -> None:
    card = Card()
    card.request(TX, [bytes(11)])
    assert card.device.status & Status.NEEDS_RESET
    assert "queue 1" in card.log[0]
    card.start()
    card.transmit(frame())
    assert len(card.cable.sent) == 1


def test_state_is_written_down_with_waiting_frames() -> None:
    card, other = Card(), Card()
    card.command(bytes((0, 0, 0)))
    card.net.receive(frame(size=77))
    card.request(RX, [], (2048,), notify=False)
    state = card.net.save()
    other.memory.ram.write(0, card.memory.ram.read(0, 1 << 20))
    other.net.restore(state)
    assert other.net.save() == state
    other.let_time_pass()
    other.drivers = card.drivers
    other.drivers[RX].memory = other.memory
    assert [written for _, written in other.drivers[RX].used()] == [89]
    assert takes(other, OTHER) == [False]
