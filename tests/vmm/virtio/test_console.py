"""The console: ports introduced, bytes both ways, back-pressure, channels on the host."""

import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.vmm.virtio.driven import Driven
from vmm.errors import UsageError
from vmm.host.channel import Channel, FileChannel, Output, StreamChannel, open_channel
from vmm.virtio.console import (
    CONTROL_RX,
    CONTROL_TX,
    WAITING_MAX,
    Console,
    ConsoleFeature,
    ConsolePort,
    Event,
)
from vmm.virtio.features import Status, bits


class Port(Output):
    """A channel that remembers what the guest said."""

    def __init__(self) -> None:
        self.heard = b""
        super().__init__(self._hear)

    def _hear(self, data: bytes) -> None:
        self.heard += data


class Driver(Driven):
    """Two ports: a console, and one called org.ring1."""

    def __init__(self, features: int = -1) -> None:
        self.channels = [Port(), Port()]
        ports = [
            ConsolePort(self.channels[0], is_console=True),
            ConsolePort(self.channels[1], "org.ring1"),
        ]
        super().__init__(lambda context: Console("console", context, ports), features=features)

    @property
    def console(self) -> Console:
        assert isinstance(self.device, Console)
        return self.device

    def control(self, port: int, event: int, value: int = 1) -> None:
        self.request(CONTROL_TX, [struct.pack("<IHH", port, event, value)])

    def messages(self, count: int = 8) -> list[tuple[int, int, int, bytes]]:
        """Give the device room for control messages; return those that came."""
        places = [self.request(CONTROL_RX, [], (64,))[0] for _ in range(count)]
        got = []
        for (_, written), gpa in zip(self.drivers[CONTROL_RX].used(), places, strict=False):
            data = self.memory.ram.read(gpa, written)
            got.append((*struct.unpack_from("<IHH", data), data[8:]))
        return got


def test_ports_are_introduced_as_the_driver_asks() -> None:
    driver = Driver()
    assert driver.device.read_config(4, 4) == 2
    driver.control(0, Event.DEVICE_READY)
    driver.control(0, Event.PORT_READY)
    driver.control(1, Event.PORT_READY)
    assert driver.messages() == [
        (0, Event.PORT_ADD, 1, b""),
        (1, Event.PORT_ADD, 1, b""),
        (0, Event.CONSOLE_PORT, 1, b""),
        (0, Event.PORT_OPEN, 1, b""),
        (1, Event.PORT_NAME, 1, b"org.ring1"),
        (1, Event.PORT_OPEN, 1, b""),
    ]


@pytest.mark.parametrize(("port", "receive", "transmit"), [(0, 0, 1), (1, 4, 5)])
def test_bytes_go_both_ways(port: int, receive: int, transmit: int) -> None:
    driver = Driver()
    driver.control(port, Event.PORT_OPEN)
    driver.request(transmit, [b"to the ", b"host"])
    assert driver.channels[port].heard == b"to the host"
    driver.console.receive(port, b"to the guest")
    first, second = (driver.request(receive, [], (8,))[0] for _ in range(2))
    assert [n for _, n in driver.drivers[receive].used()] == [8, 4]
    assert driver.memory.ram.read(first, 8) + driver.memory.ram.read(second, 4) == b"to the guest"


def test_bytes_wait_until_the_guest_opens_the_port() -> None:
    driver = Driver()
    driver.request(4, [], (8,))
    driver.console.receive(1, b"early")
    assert driver.drivers[4].used() == []
    driver.control(1, Event.PORT_OPEN)
    assert [n for _, n in driver.drivers[4].used()] == [5]
    driver.control(1, Event.PORT_OPEN, 0)
    driver.request(4, [], (8,))
    driver.console.receive(1, b"late")
    assert driver.drivers[4].used() == []


def test_without_multiport_port_0_works_at_once() -> None:
    driver = Driver(features=~bits(ConsoleFeature.MULTIPORT))
    driver.request(0, [], (8,))
    driver.console.receive(0, b"now")
    assert [n for _, n in driver.drivers[0].used()] == [3]


def test_a_guest_that_does_not_read_holds_the_host_back() -> None:
    driver = Driver()
    driver.console.receive(0, bytes(WAITING_MAX + 10))
    assert driver.console.room(0) == 0
    assert len(driver.console.ports[0].waiting) == WAITING_MAX


def test_the_emergency_register_writes_without_a_queue() -> None:
    driver = Driver()
    driver.device.write_config(8, 4, ord("!"))
    driver.device.write_config(4, 4, 9)  # the number of ports is not for the driver to set
    assert driver.channels[0].heard == b"!"
    assert driver.device.read_config(4, 4) == 2


def test_nonsense_is_ignored_or_breaks_the_device() -> None:
    driver = Driver()
    driver.control(77, Event.PORT_OPEN)
    driver.control(0, 999)
    assert driver.console.live
    driver.request(CONTROL_TX, [b"short"])
    assert driver.device.status & Status.NEEDS_RESET
    assert "control message of 5 bytes" in driver.log[0]


def test_a_flood_of_questions_is_answered_within_bounds() -> None:
    driver = Driver()
    for _ in range(2000):
        driver.control(0, Event.DEVICE_READY)
        driver.drivers[CONTROL_TX].used()
    assert len(driver.console._pending) <= 1024


def test_state_is_written_down() -> None:
    driver, other = Driver(), Driver()
    driver.control(0, Event.DEVICE_READY)
    driver.control(1, Event.PORT_OPEN)
    driver.console.receive(1, b"waiting")
    state = driver.console.save()
    other.memory.ram.write(0, driver.memory.ram.read(0, 1 << 20))
    other.console.restore(state)
    assert other.console.save() == state
    assert other.console.ports[1].open
    assert other.console.ports[1].waiting == b"waiting"


def until(what: Callable[[], object], channel: Channel) -> None:
    give_up = time.monotonic() + 10
    while not what():
        assert time.monotonic() < give_up
        channel.poll()


def test_a_socket_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    heard: list[bytes] = []
    room = [4]
    channel = open_channel("--channel", "listen=unix:port")
    assert isinstance(channel, StreamChannel)
    channel.bind(heard.append, lambda: room[0])
    channel.write(b"nobody hears")
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect("port")
        until(lambda: channel.stream.has_peer, channel)
        channel.write(b"hello")
        assert peer.recv(100) == b"hello"
        peer.sendall(b"123456")
        until(lambda: heard, channel)
        assert heard == [b"1234"]
        room[0] = 0
        assert not channel.poll()
        assert channel.descriptors() == []
        room[0] = 4
        until(lambda: len(heard) == 2, channel)
        assert heard == [b"1234", b"56"]
    until(lambda: not channel.stream.has_peer, channel)
    channel.close()
    assert not Path("port").exists()


def test_a_file_channel(tmp_path: Path) -> None:
    channel = open_channel("--channel", f"file={tmp_path / 'log'}")
    channel.write(b"one ")
    channel.write(b"two")
    channel.close()
    assert (tmp_path / "log").read_bytes() == b"one two"


def test_a_full_pipe_does_not_stop_the_guest(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    channel = FileChannel(tmp_path / "pipe", "--channel")
    for _ in range(100):
        channel.write(bytes(10_000))
    channel.close()
    os.close(reader)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("file=", "is no channel; write listen=unix:PATH"),
        ("tty", "'tty' is no channel"),
        ("listen=unix:", "'unix:' is no address"),
        ("connect=unix:nobody", "nobody can be reached at unix:nobody"),
        ("file=missing/folder", "cannot be written: no such file or directory"),
    ],
)
def test_what_cannot_be_had_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        open_channel("--channel x", words)
    assert said in str(caught.value)
    assert str(caught.value).startswith("--channel x: ")
