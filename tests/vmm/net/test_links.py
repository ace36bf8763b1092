"""Cables between two guests: a stream socket as QEMU's, and a wire in virtual time."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hwmodel.timing.clock import Clock
from tests.vmm.net.station import free_port
from vmm.errors import UsageError
from vmm.net.backend import Port
from vmm.net.options import NetOptions
from vmm.net.socket_link import BACKLOG, SocketLink
from vmm.net.wire import BACKLOG_FRAMES, Wire

FRAME = bytes(range(60))


def plugged(text: str) -> tuple[SocketLink, list[bytes]]:
    link, heard = SocketLink(NetOptions.parse(text)), list[bytes]()
    link.plug_in(Port(Clock(), heard.append))
    return link, heard


def listening() -> tuple[SocketLink, list[bytes]]:
    return plugged(f"socket,listen=:{free_port()}")


def until(what: Callable[[], object], *links: SocketLink) -> None:
    give_up = time.monotonic() + 10
    while not what():
        assert time.monotonic() < give_up
        for link in links:
            link.poll()


@pytest.mark.parametrize("unix", [False, True])
def test_two_links_carry_frames_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unix: bool
) -> None:
    monkeypatch.chdir(tmp_path)  # a Unix socket's path is short
    first, at_first = plugged("socket,listen=unix:cable") if unix else listening()
    second, at_second = plugged(f"socket,connect={first.stream.address}")
    frames = [bytes([n]) * (14 + 100 * n) for n in range(20)] + [bytes(65549)]
    until(lambda: first.stream.has_peer, first)
    for frame in frames:
        first.send(frame)
        second.send(frame)
    until(lambda: len(at_second) == len(at_first) == len(frames), first, second)
    assert at_first == at_second == frames
    second.close()
    until(lambda: not first.stream.has_peer, first)
    third, at_third = plugged(f"socket,connect={first.stream.address}")
    until(lambda: first.stream.has_peer, first)
    first.send(FRAME)
    until(lambda: at_third, first, third)
    first.close()
    third.close()
    assert not Path("cable").exists()


def test_the_wire_format_is_a_length_and_a_frame() -> None:
    link, heard = listening()
    assert len(link.descriptors()) == 1
    with socket.create_connection((link.stream.address.host, link.stream.address.port)) as peer:
        peer.settimeout(5)
        until(lambda: link.stream.has_peer, link)
        link.send(FRAME)
        assert peer.recv(1000) == b"\0\0\0\x3c" + FRAME
        for piece in (b"\0\0", b"\0\x3c" + FRAME[:10], FRAME[10:] + b"\0\0\0\x02ab"):
            peer.sendall(piece)
            until(lambda: link._in or heard, link)
        until(lambda: heard, link)
        assert heard == [FRAME]
        peer.sendall(b"GET / HTTP/1.0\r\n\r\n")  # no length of a frame: not one of us
        until(lambda: not link.stream.has_peer, link)
    link.close()


def test_a_peer_that_does_not_read_costs_bounded_memory() -> None:
    link, _ = listening()
    with socket.create_connection((link.stream.address.host, link.stream.address.port)):
        until(lambda: link.stream.has_peer, link)
        for _ in range(4 * BACKLOG // 60000):
            link.send(bytes(60000))
        assert link.dropped
        assert len(link.stream.unsent) <= BACKLOG + 60004
    link.close()


def test_what_cannot_be_had_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, _ = listening()
    with pytest.raises(UsageError, match="cannot be listened at: address already in use"):
        plugged(f"socket,listen={first.stream.address}")
    first.close()
    with pytest.raises(UsageError, match=r"nobody can be reached .* start the listening side"):
        plugged("socket,connect=unix:nobody")
    Path("file").write_text("kept")
    with pytest.raises(UsageError, match="address already in use"):
        plugged("socket,listen=unix:file")
    assert Path("file").read_text() == "kept"


def test_a_wire_delivers_after_its_latency_in_the_receivers_time() -> None:
    wire = Wire(latency_ns=1000)
    fast, slow = Clock(frequency=3_000_000_000), Clock(frequency=1_000_000_000)
    heard: list[bytes] = []
    news: list[None] = []
    wire.left.send(FRAME)  # nobody is plugged in
    wire.left.plug_in(Port(fast))
    wire.right.plug_in(Port(slow, heard.append, lambda: news.append(None)))
    fast.now = 6000  # 2000 ns
    wire.left.send(FRAME)
    assert news == [None]
    assert wire.right.next_event() == 3000
    slow.now = 2999
    wire.right.fire()
    assert heard == []
    slow.now = 3000
    wire.right.fire()
    assert heard == [FRAME]
    assert wire.right.next_event() is None
    assert wire.left.dropped == 1


def test_a_wire_to_a_vm_that_does_not_run_holds_so_many() -> None:
    wire = Wire()
    wire.left.plug_in(Port(Clock()))
    wire.right.plug_in(Port(Clock()))
    for _ in range(BACKLOG_FRAMES + 5):
        wire.left.send(FRAME)
    assert wire.right.dropped == 5
    wire.right.close()
    assert wire.right.next_event() is None
