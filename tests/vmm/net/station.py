"""A station on the cable that speaks just enough Ethernet, ARP, IPv4, UDP and TCP (RFC texts)."""

import socket
import struct
import time
from collections.abc import Callable

from hwmodel.timing.clock import Clock
from vmm.net.backend import Backend, Port

MAC = bytes.fromhex("525400123456")
BROADCAST = b"\xff" * 6
GUEST, GATEWAY = bytes((10, 0, 2, 15)), bytes((10, 0, 2, 2))
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def checksum(data: bytes) -> int:
    data += bytes(len(data) & 1)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Station:
    """Plugged into a backend; keeps what it hears."""

    def __init__(self, backend: Backend, clock: Clock) -> None:
        self.backend, self.clock = backend, clock
        self.heard: list[bytes] = []
        self.router = BROADCAST
        backend.plug_in(Port(clock, self.heard.append))

    def until(self, what: Callable[[], object], seconds: float = 10) -> None:
        """Let host and virtual time pass until `what()` is true."""
        give_up = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < give_up, "it did not happen"
            event = self.backend.next_event()
            self.clock.now += self.clock.cycles_of_ns(100_000)
            if event is not None and event <= self.clock.now:
                self.backend.fire()
            if not self.backend.poll():
                time.sleep(0.0005)

    def arp(self, address: bytes = GATEWAY) -> bytes:
        """Ask for an address; return who has it."""
        head = struct.pack(">HHBBH", 1, 0x800, 6, 4, 1)
        question = head + MAC + GUEST + bytes(6) + address
        self.backend.send(BROADCAST + MAC + b"\x08\x06" + question)
        answers = [f for f in self.heard if f[12:14] == b"\x08\x06" and f[28:32] == address]
        self.router = answers[-1][6:12]
        return self.router

    def ip(self, protocol: int, payload: bytes, source: bytes, to: bytes) -> None:
        size = 20 + len(payload)
        head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, size, 1, 0, 64, protocol, 0, source, to)
        head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
        self.backend.send(self.router + MAC + b"\x08\x00" + head + payload)

    def udp(
        self, port: int, payload: bytes, *, to: bytes, source: bytes = GUEST, from_port: int = 4000
    ) -> None:
        head = struct.pack(">HHHH", from_port, port, 8 + len(payload), 0)
        self.ip(17, head + payload, source, to)

    def datagrams(self, port: int) -> list[bytes]:
        """The payloads that came to UDP `port`."""
        packets = [f[14:] for f in self.heard if f[12:14] == b"\x08\x00" and f[23] == 17]
        return [p[28:] for p in packets if p[22:24] == port.to_bytes(2, "big")]


class Connection:
    """One TCP connection of a station, by hand; what it hears it acknowledges at once."""

    def __init__(self, station: Station, port: int, own_port: int = 40000) -> None:
        self.station, self.port, self.own_port = station, port, own_port
        self.next, self.seen, self.acknowledged, self.window = 1000, 0, 0, 0
        self.flags = 0
        self.data = b""
        self.at = len(station.heard)

    def connect(self) -> None:
        self.segment(SYN)
        self.next += 1
        self.station.until(lambda: self.listen() and self.flags & (SYN | RST))

    def accept(self) -> None:
        """Wait for a SYN to our port and answer it."""
        self.station.until(lambda: self.listen() and self.flags & SYN)
        self.segment(SYN | ACK)
        self.next += 1
        self.flags = 0

    def send(self, data: bytes) -> None:
        """Send one segment, however large, when the window has room; wait for its ACK."""
        self.station.until(lambda: self.listen() and self.window >= len(data))
        self.segment(ACK | PSH, data)
        self.next += len(data)
        self.station.until(lambda: self.listen() and self.acknowledged == self.next)

    def segment(self, flags: int, data: bytes = b"") -> None:
        fields = (self.own_port, self.port, self.next, self.seen, 5 << 4, flags, 65535, 0, 0)
        head = struct.pack(">HHIIBBHHH", *fields)
        pseudo = GUEST + GATEWAY + struct.pack(">HH", 6, len(head) + len(data))
        total = checksum(pseudo + head + data).to_bytes(2, "big")
        self.station.ip(6, head[:16] + total + head[18:] + data, GUEST, GATEWAY)

    def listen(self) -> bool:
        """Take in the segments that came."""
        news = self.station.heard[self.at :]
        self.at += len(news)
        for packet in (f[14:] for f in news if f[12:14] == b"\x08\x00" and f[23] == 6):
            self._hear(packet[20 : int.from_bytes(packet[2:4], "big")])
        return True

    def _hear(self, segment: bytes) -> None:
        source, to, sequence, acknowledged, offset, flags, window = struct.unpack_from(
            ">HHIIBBH", segment
        )
        if to != self.own_port:
            return
        self.port, self.acknowledged, self.window = source, acknowledged, window
        self.flags |= flags
        body = segment[(offset >> 4) * 4 :]
        if flags & SYN:
            self.seen = sequence + 1
        elif sequence == self.seen:
            self.data += body
            self.seen += len(body) + bool(flags & FIN)
        if body or flags & FIN or flags & (SYN | ACK) == SYN | ACK:
            self.segment(ACK)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
