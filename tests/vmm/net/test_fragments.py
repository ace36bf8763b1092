"""Fragments become the datagram they were cut from, in any order; nonsense becomes nothing."""

import random
import struct

import pytest

from tests.vmm.net.station import GATEWAY, GUEST, MAC, checksum
from vmm.net.fragments import DATAGRAMS_MAX, LIFETIME_NS, PIECES_MAX, Reassembler
from vmm.net.guard import admitted

ETHERNET = b"\xff" * 6 + MAC + b"\x08\x00"


def packet(payload: bytes, offset: int = 0, *, more: bool = False, number: int = 7) -> bytes:
    place = offset // 8 | (0x2000 if more else 0)
    size = 20 + len(payload)
    head = struct.pack(">BBHHHBBH", 0x45, 0, size, number, place, 64, 17, 0) + GUEST + GATEWAY
    return ETHERNET + head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + payload


def cut(payload: bytes, step: int) -> list[bytes]:
    last = len(payload) - step
    return [
        packet(payload[at : at + step], at, more=at < last) for at in range(0, len(payload), step)
    ]


@pytest.mark.parametrize("step", [8, 48, 1480])
@pytest.mark.parametrize("size", [9, 3000, 60000])
def test_any_order_gives_the_datagram(step: int, size: int) -> None:
    payload = random.Random(size).randbytes(size)
    frames = cut(payload, step if size < 60000 else 1480)
    random.Random(step).shuffle(frames)
    reassembler = Reassembler(lambda: 0)
    given = [whole for frame in frames if (whole := reassembler.take(frame))]
    assert given == [packet(payload)]


def test_a_packet_that_is_no_fragment_passes() -> None:
    assert Reassembler(lambda: 0).take(packet(b"whole")) == packet(b"whole")


def test_overlaps_and_repetitions_do_no_harm() -> None:
    reassembler = Reassembler(lambda: 0)
    assert reassembler.take(packet(bytes(16), 0, more=True)) is None
    assert reassembler.take(packet(bytes(16), 0, more=True)) is None
    assert reassembler.take(packet(b"\1" * 16, 8, more=True)) is None
    whole = reassembler.take(packet(b"\2" * 5, 24))
    assert whole == packet(bytes(8) + b"\1" * 16 + b"\2" * 5)


def test_what_ends_behind_64_kib_is_dropped() -> None:
    reassembler = Reassembler(lambda: 0)
    assert reassembler.take(packet(bytes(100), 0x1FFF * 8)) is None
    assert not reassembler._open


def test_memory_is_bounded() -> None:
    now = [0]
    reassembler = Reassembler(lambda: now[0])
    for number in range(3 * DATAGRAMS_MAX):
        reassembler.take(packet(bytes(8), 0, more=True, number=number))
    assert len(reassembler._open) == DATAGRAMS_MAX
    now[0] = LIFETIME_NS + 1
    reassembler.take(packet(bytes(8), 0, more=True, number=9999))
    assert len(reassembler._open) == 1
    for place in range(PIECES_MAX + 1):
        reassembler.take(packet(bytes(8), 16 * (place % 4000) % 65000, more=True, number=5))
    assert all(len(d.pieces) <= PIECES_MAX for d in reassembler._open.values())


@pytest.mark.parametrize(
    "damage",
    [
        {14: 0x44},  # header shorter than 20 bytes
        {14: 0x65},  # version 6
        {14: 0x4F},  # header longer than the packet
        {16: 0xFF},  # longer than the frame
        {16: 0, 17: 19},  # shorter than its header
        {12: 0x86, 13: 0xDD},  # IPv6
        {12: 0x88, 13: 0xF8},  # NC-SI
        {12: 0x08, 13: 0x06},  # ARP, and not
    ],
)
def test_unsound_frames_do_not_pass(damage: dict[int, int]) -> None:
    frame = bytearray(packet(b"12345"))
    assert admitted(bytes(frame), Reassembler(lambda: 0))
    for place, value in damage.items():
        frame[place] = value
    assert admitted(bytes(frame), Reassembler(lambda: 0)) is None
    assert admitted(bytes(frame[:20]), Reassembler(lambda: 0)) is None
