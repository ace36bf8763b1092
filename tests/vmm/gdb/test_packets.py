"""The packet layer: framing by the protocol's own words, whatever a socket brings."""

import pytest

from tests.vmm.gdb.fuzz import fuzz_decoder
from vmm.gdb.packets import PACKET_SIZE, Decoder, Packet, Signal, escaped, frame


def fed(*pieces: bytes, most: int = PACKET_SIZE) -> list[Packet | Signal]:
    decoder = Decoder(most)
    return [item for piece in pieces for item in decoder.feed(piece)]


def test_the_sum_is_the_manuals() -> None:
    assert frame(b"OK") == b"$OK#9a"  # gdb manual, "Packet Acknowledgment"
    assert frame(b"") == b"$#00"
    assert fed(b"$OK#9a$#00") == [Packet(b"OK"), Packet(b"")]


def test_signs_between_packets() -> None:
    assert fed(b"+-\x03noise+") == [Signal.ACK, Signal.NACK, Signal.INTERRUPT, Signal.ACK]


def test_0x03_inside_a_packet_is_data() -> None:
    body = b"X0,1:\x03"
    assert fed(frame(body)) == [Packet(body)]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_half_packets_wait_for_the_rest(size: int) -> None:
    stream = b"+" + frame(b"qSupported:a+") + b"\x03" + frame(b"X1,2:}#")
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    wanted = [Signal.ACK, Packet(b"qSupported:a+"), Signal.INTERRUPT, Packet(b"X1,2:}#")]
    assert fed(*pieces) == wanted


@pytest.mark.parametrize(
    "stream",
    [b"$OK#9b", b"$OK#zz", b"$a}#de", b"$*!#4b", b"$0*\x1f#79", b"$0*\x7f#d9", b"$0*#5a"],
)
def test_what_is_garbled_is_said_to_be(stream: bytes) -> None:
    found = fed(stream, b"$g#67")
    assert found[-1] == Packet(b"g")
    assert found[:-1] in ([Signal.GARBLED], [])  # a packet that begins again swallows the first


def test_a_dollar_begins_again() -> None:
    assert fed(b"$lost$g#67") == [Packet(b"g")]
    assert fed(b"$lost", b"$g#67") == [Packet(b"g")]


def test_repetitions_are_undone() -> None:
    assert fed(b"$0* #7a") == [Packet(b"0000")]  # the manual's own example
    assert fed(frame(b"*") + b"$a*~#%02x" % (sum(b"a*~") & 0xFF)) == [
        Packet(b"*"), Packet(b"a" * (1 + ord("~") - 29)),
    ]  # fmt: skip


@pytest.mark.parametrize("payload", [bytes(range(256)), b"}" * 100, b"#$*}" * 50, b""])
def test_what_is_framed_comes_back(payload: bytes) -> None:
    assert fed(frame(payload)) == [Packet(payload)]
    assert not set(b"#$*") & set(escaped(payload))


def test_too_long_is_garbled_and_forgotten() -> None:
    assert fed(frame(bytes(64)), frame(bytes(65)), b"$g#67", most=64) == [
        Packet(bytes(64)), Signal.GARBLED, Packet(b"g"),
    ]  # fmt: skip
    decoder = Decoder(64)
    assert list(decoder.feed(b"$" + bytes(1 << 20))) == []
    assert decoder.held <= 2 * 64
    bomb = b"a*~" * 40
    assert fed(b"$%b#%02x" % (bomb, sum(bomb) & 0xFF), most=64) == [Signal.GARBLED]


def test_a_sample_of_the_fuzz() -> None:
    """The whole, a million: python -m tests.vmm.gdb.fuzz 1000000"""
    assert fuzz_decoder(20_000, seed=1) > 1000
