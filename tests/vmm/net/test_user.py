"""The user-mode network: ARP, DHCP, TCP both ways, forwards; and what is said when it cannot be."""

import hashlib
import random
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from hwmodel.timing.clock import Clock
from tests.vmm.net.station import (
    ACK,
    BROADCAST,
    FIN,
    GATEWAY,
    MAC,
    RST,
    SYN,
    Connection,
    Station,
    checksum,
    free_port,
)
from vmm.errors import UsageError
from vmm.net import libslirp
from vmm.net.options import NetOptions
from vmm.net.user import UserNetwork

try:
    libslirp.library()
except UsageError as error:
    pytest.skip(str(error), allow_module_level=True)

EVERYONE, UNKNOWN = b"\xff" * 4, bytes(4)


def station(text: str = "user") -> Station:
    clock = Clock()
    return Station(UserNetwork(clock, NetOptions.parse(text)), clock)


@pytest.fixture
def guest() -> Iterator[Station]:
    guest = station()
    yield guest
    guest.backend.close()


def dhcp(kind: int, *options: bytes) -> bytes:
    """A BOOTP request (RFC 2131, "DHCP message format")."""
    head = struct.pack(">BBBBIHH", 1, 1, 6, 0, 0x1234, 0, 0) + bytes(16) + MAC + bytes(10 + 192)
    return head + b"\x63\x82\x53\x63" + bytes((53, 1, kind)) + b"".join(options) + b"\xff"


def lease(guest: Station) -> tuple[bytes, bytes]:
    """Ask for a lease; return the offer and the acknowledgement."""
    guest.udp(67, dhcp(1), to=EVERYONE, source=UNKNOWN, from_port=68)
    offer = guest.datagrams(68)[0]
    request = bytes((50, 4)) + offer[16:20], bytes((54, 4)) + GATEWAY
    guest.udp(67, dhcp(3, *request), to=EVERYONE, source=UNKNOWN, from_port=68)
    return offer, guest.datagrams(68)[1]


def test_the_router_answers_arp_and_ping(guest: Station) -> None:
    assert guest.arp() != BROADCAST
    assert guest.arp(bytes((10, 0, 2, 3))) != BROADCAST
    body = struct.pack(">BBHHH", 8, 0, 0, 7, 1) + b"ring1" * 10
    body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
    guest.ip(1, body, bytes((10, 0, 2, 15)), GATEWAY)
    replies = [f for f in guest.heard if f[12:14] == b"\x08\x00" and f[23] == 1]
    assert replies[0][34:36] == b"\0\0"
    assert replies[0].endswith(b"ring1" * 10)


def test_dhcp_leases_the_address_that_is_documented(guest: Station) -> None:
    offer, acknowledged = lease(guest)
    assert offer[16:20] == bytes((10, 0, 2, 15))
    assert bytes((53, 1, 5)) in acknowledged[236:]
    assert bytes((3, 4)) + GATEWAY in acknowledged[236:]  # router
    assert bytes((6, 4, 10, 0, 2, 3)) in acknowledged[236:]  # name server


def test_another_network_can_be_chosen() -> None:
    guest = station("user,net=192.168.7.0/24,dhcpstart=192.168.7.100")
    guest.udp(67, dhcp(1), to=EVERYONE, source=UNKNOWN, from_port=68)
    assert guest.datagrams(68)[0][16:20] == bytes((192, 168, 7, 100))
    guest.backend.close()


class Listener:
    """A host program that reads a connection to its end, then answers."""

    def __init__(self, reply: bytes = b"") -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.received = hashlib.sha256()
        self.reply = reply
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        peer, _ = self.socket.accept()
        with peer, self.socket:
            while data := peer.recv(1 << 16):
                self.received.update(data)
            peer.sendall(self.reply)


@pytest.mark.parametrize("size", [1460, 60000])
def test_tcp_to_the_host_and_back(guest: Station, size: int) -> None:
    """Segments of 60000 bytes are what a driver with segmentation offload sends."""
    reply = random.Random(1).randbytes(200_000)
    listener = Listener(reply)
    guest.arp()
    connection = Connection(guest, listener.port)
    connection.connect()
    pieces = [random.Random(n).randbytes(size) for n in range(10)]
    for piece in pieces:
        connection.send(piece)
    connection.segment(FIN | ACK)
    connection.next += 1
    guest.until(lambda: connection.listen() and len(connection.data) == len(reply))
    assert connection.data == reply
    listener.thread.join(5)
    assert listener.received.digest() == hashlib.sha256(b"".join(pieces)).digest()
    assert not connection.flags & RST


def test_a_closed_port_resets(guest: Station) -> None:
    guest.arp()
    connection = Connection(guest, free_port())
    connection.connect()
    assert connection.flags & RST


def test_a_forward_leads_into_the_guest() -> None:
    port = free_port()
    guest = station(f"user,hostfwd=tcp::{port}-:80")
    assert guest.backend.descriptors(), "an idle guest must wait for who may knock"
    guest.arp()
    lease(guest)
    with socket.create_connection(("127.0.0.1", port)) as host:
        host.sendall(b"who is there?")
        connection = Connection(guest, 0, own_port=80)
        connection.accept()
        guest.until(lambda: connection.listen() and connection.data == b"who is there?")
        connection.send(b"a guest")
        host.settimeout(5)
        assert host.recv(100) == b"a guest"
    guest.backend.close()


def test_udp_to_the_host_and_back(guest: Station) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host:
        host.bind(("127.0.0.1", 0))
        host.settimeout(5)
        guest.arp()
        guest.udp(host.getsockname()[1], b"question", to=GATEWAY)
        data, sender = host.recvfrom(100)
        assert data == b"question"
        host.sendto(b"answer", sender)
        guest.until(lambda: guest.datagrams(4000))
        assert guest.datagrams(4000) == [b"answer"]


def test_without_sockets_nothing_is_waited_for_and_nothing_is_due(guest: Station) -> None:
    guest.arp()
    guest.until(lambda: guest.backend.next_event() is None)
    assert guest.backend.descriptors() == []


def test_restricted_guests_reach_nobody() -> None:
    guest = station("user,restrict=on")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        guest.arp()
        Connection(guest, listener.getsockname()[1]).segment(SYN)
        for _ in range(20):
            guest.backend.poll()
        listener.settimeout(0.05)
        with pytest.raises(TimeoutError):
            listener.accept()
    guest.backend.close()


def test_a_busy_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"tcp port {port} of 127.0.0.1 cannot be had"):
            station(f"user,hostfwd=tcp::{port}-:22")


def test_a_missing_library_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    libslirp.library.cache_clear()
    monkeypatch.setattr(libslirp, "SONAME", "libslirp-that-is-not-there.so")
    with pytest.raises(UsageError, match="apt-get install libslirp0") as caught:
        libslirp.library()
    assert caught.value.status == 64
    libslirp.library.cache_clear()


def test_a_library_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    libslirp.library.cache_clear()
    monkeypatch.setattr(libslirp, "OLDEST", (99, 0))
    with pytest.raises(UsageError, match=r"libslirp 99.0 or newer, this is 4\."):
        libslirp.library()
    libslirp.library.cache_clear()


def test_frames_of_any_content_are_taken(guest: Station) -> None:
    """Headers that make sense up to some field, and garbage from there on."""
    chance = random.Random(5)
    guest.arp()
    for _ in range(3000):
        kind = chance.choice((b"\x08\x00", b"\x08\x06", b"\x86\xdd", chance.randbytes(2)))
        body = bytearray(chance.randbytes(chance.choice((0, 1, 20, 28, 40, 60, 300, 1500))))
        if len(body) >= 28 and chance.random() < 0.8:
            body[0] = chance.choice((0x45, 0x46, 0x4F, 0x44))
            body[2:4] = chance.choice((len(body), len(body) - 1, 65535)).to_bytes(2, "big")
            body[6:8] = chance.choice((0, 0x2000, 0x1FFF)).to_bytes(2, "big")
            body[9] = chance.choice((1, 6, 17))
            body[12:20] = bytes((10, 0, 2, 15, 10, 0, 2, chance.choice((2, 3, 15, 255))))
            body[10:12] = bytes(2)
            body[10:12] = _header_sum(bytes(body)).to_bytes(2, "big")
        guest.backend.send(guest.router + MAC + kind + bytes(body))
    guest.backend.poll()
    guest.heard.clear()
    assert guest.arp() != BROADCAST


def _header_sum(packet: bytes) -> int:
    return checksum(packet[: 4 * (packet[0] & 15)])
