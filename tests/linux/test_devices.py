"""Linux's own drivers on our devices: network, folders, entropy, ports, console, balloon."""

import contextlib
import hashlib
import random
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.linux.guests import PROMPT, QUICK, Boot, Console
from tests.vmm.net.station import free_port
from vmm import VM
from vmm.cli.initramfs import script_archive
from vmm.config import MIB
from vmm.errors import UsageError
from vmm.host.sources import wait
from vmm.net import libslirp
from vmm.net.wire import Wire
from vmm.together import run_together

QUIET = f"{QUICK} quiet"
UDHCPC = "udhcpc -n -q; ip addr show eth0; ip route; cat /etc/resolv.conf"
UP = "ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2"
FREE = "awk '/MemFree/{print \"FREE\",$2}' /proc/meminfo\n"


@pytest.fixture
def library() -> None:
    try:
        libslirp.library()
    except UsageError as error:
        pytest.skip(str(error))


class Receiver:
    """A host program that reads one connection to its end, and answers with a hash."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.data = bytearray()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        peer, _ = self.socket.accept()
        with peer, self.socket:
            while data := peer.recv(1 << 16):
                self.data += data


def test_network_folders_entropy_and_ports(cloud: Boot, tmp_path: Path, library: None) -> None:
    shared, read_only = tmp_path / "rw", tmp_path / "ro"
    (read_only / "deep").mkdir(parents=True)
    shared.mkdir()
    content = random.Random(4).randbytes(3_000_000)
    (read_only / "deep" / "data").write_bytes(content)
    receiver = Receiver()
    text, result = cloud.say(
        UDHCPC,
        "ping -c 2 10.0.2.2",
        "mkdir /ro /rw; mount -t virtiofs share /ro; mount -t virtiofs rw /rw; ls -R /ro",
        "sha256sum /ro/deep/data; touch /ro/x",
        f"nc 10.0.2.2 {receiver.port} -e dd if=/ro/deep/data bs=64k",
        "cp /ro/deep/data /rw/copy; mkdir /rw/d; mv /rw/copy /rw/d/moved; ln -s moved /rw/d/link",
        "cat /sys/class/misc/hw_random/rng_current; head -c 8 /dev/hwrng | od -An -tx1",
        "cat /sys/class/virtio-ports/vport*p1/name; echo 'through a port' > /dev/vport1p1",
        net="user",
        rng="seeded",
        channels=f"org.ring1,file={tmp_path / 'port'}",
        shares=[f"{read_only},readonly", f"{shared},tag=rw"],
        cmdline=QUIET,
        wait_idle=wait,
    )
    receiver.thread.join(10)
    assert result.reason == "poweroff"
    leased = ("inet 10.0.2.15/24", "default via 10.0.2.2 dev eth0", "nameserver 10.0.2.3")
    assert [word for word in leased if word not in text] == []
    assert "2 packets received, 0% packet loss" in text
    assert f"{hashlib.sha256(content).hexdigest()}  /ro/deep/data" in text
    assert "touch: /ro/x: Read-only file system" in text
    assert receiver.data == content
    assert (shared / "d" / "moved").read_bytes() == content
    assert (shared / "d" / "link").is_symlink()
    assert "virtio_rng.0" in text
    assert "org.ring1" in text
    assert (tmp_path / "port").read_bytes() == b"through a port\n"


def test_the_host_reaches_a_guest_through_a_forward(cloud: Boot, library: None) -> None:
    port = free_port()
    heard = bytearray()

    def knock() -> None:
        """Connect until somebody listens in the guest: before, it resets."""
        give_up = time.monotonic() + 60
        while not heard and time.monotonic() < give_up:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", port), timeout=60) as peer,
            ):
                peer.sendall(b"from the host\n")
                while data := peer.recv(1000):
                    heard.extend(data)
            time.sleep(0.05)

    knocker = threading.Thread(target=knock, daemon=True)
    steps: list[tuple[bytes, Any]] = [
        (PROMPT, f"{UP}; echo UP''NOW\n".encode()),
        (b"UPNOW", knocker.start),
        (PROMPT, b"nc -l -p 80 -e sh -c 'read x; echo I heard: $x'; poweroff\n"),
    ]
    console = Console(steps)
    net = f"user,hostfwd=tcp::{port}-10.0.2.15:80"
    with cloud.vm(console, net=net, cmdline=QUIET, wait_idle=wait, timeout=None) as vm:
        result = vm.run()
    knocker.join(10)
    assert result.reason == "poweroff"
    assert heard == b"I heard: from the host\n"


def test_console_balloon_and_the_other_transport(cloud: Boot) -> None:
    """hvc0 on the terminal; entropy over MMIO, with packed rings; memory given and taken back."""
    machine: list[VM] = []
    seen: dict[str, int] = {}

    def inflate() -> None:
        machine[0].balloon.target = 64 * MIB

    def deflate() -> None:
        balloon = machine[0].balloon
        seen.update(balloon.statistics, actual=balloon.actual, released=balloon.released)
        balloon.target = 0

    steps: list[tuple[bytes, Any]] = [
        (PROMPT, FREE.encode()),
        (PROMPT, b"echo IN''FLATE\n"),
        (b"INFLATE", inflate),
        (PROMPT, f"sleep 2; {FREE}".encode()),
        (PROMPT, b"tty; cat /proc/interrupts; head -c 8 /dev/hwrng | od -An -tx1\n"),
        (PROMPT, b"echo DE''FLATE\n"),
        (b"DEFLATE", deflate),
        (PROMPT, f"sleep 2; {FREE}".encode()),
        (PROMPT, b"poweroff\n"),
    ]
    console = Console(steps)
    options: dict[str, Any] = {
        "balloon": "on,stats=0.5",
        "console": "virtio",
        "rng": "seeded,transport=mmio,packed",
        "cmdline": f"{QUIET} console=hvc0",
    }
    with cloud.vm(console, **options) as vm:
        machine.append(vm)
        assert vm.run().reason == "poweroff"
    before, inflated, after = (int(kib) for kib in re.findall(r"FREE (\d+)", console.text))
    assert seen["actual"] == 64 * MIB
    assert seen["released"] >= 64 * MIB
    assert 55_000 < before - inflated < 70_000
    assert after - inflated > 55_000
    assert abs(seen["free"] // 1024 - inflated) < 10_000
    assert "/dev/hvc0" in console.text
    assert re.search(r"IO-APIC +\d+-fasteoi +virtio", console.text)


@pytest.mark.slow
def test_two_guests_on_a_wire_are_the_same_twice(cloud: Boot) -> None:
    def address(number: int) -> bytes:
        return f"ip link set eth0 up; ip addr add 10.9.0.{number}/24 dev eth0\n".encode()

    def talk() -> list[Any]:
        wire = Wire()
        server = Console([
            (PROMPT, address(1)),
            (PROMPT, b"nc -l -p 99 -e sha256sum > /sum; cat /sum; poweroff\n"),
        ])  # fmt: skip
        client = Console([
            (PROMPT, address(2)),
            (PROMPT, b"sleep 2; ping -c 2 10.9.0.1\n"),
            (PROMPT, b"nc 10.9.0.1 99 -e dd if=/dev/zero bs=64k count=16\n"),
            (PROMPT, b"poweroff\n"),
        ])  # fmt: skip
        options: dict[str, Any] = {"cmdline": QUIET, "wait_idle": None}
        with (
            cloud.vm(server, net=wire.left, **options) as one,
            cloud.vm(client, net=wire.right, **options) as other,
        ):
            results = run_together(one, other)
            digests = [vm.digest() for vm in (one, other)]
        assert "2 packets received, 0% packet loss" in client.text
        ends = [(result.reason, result.instructions) for result in results if result]
        assert [reason for reason, _ in ends] == ["poweroff"] * 2
        return [ends, digests, server.text, client.text]

    assert talk() == talk()


SERVER = """
ip link set eth0 up; ip addr add 10.9.0.1/24 dev eth0
nc -l -p 99 -e sh -c 'sha256sum > /root/sum'
echo "GOT $(cat /root/sum)"
"""
CLIENT = """
ip link set eth0 up; ip addr add 10.9.0.2/24 dev eth0
head -c 2000000 /dev/urandom > /root/data
until ping -c 1 -w 1 10.9.0.1 > /root/ping; do sleep 1; done
nc 10.9.0.1 99 -e cat /root/data
echo "SENT $(sha256sum < /root/data)"
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["port", "path"])
def test_a_socket_joins_the_guests_of_two_processes(cloud: Boot, tmp_path: Path, name: str) -> None:
    """Linux in each, TCP between them."""
    address = f":{free_port()}" if name == "port" else f"unix:{tmp_path / 'cable'}"
    ring1 = [sys.executable, "-m", "vmm", "run", str(cloud.kernel.image), "--cmdline", QUIET]
    said = {}
    with contextlib.ExitStack() as stack:
        started = []
        for side, script in (("listen", SERVER), ("connect", CLIENT)):
            archive = tmp_path / f"{side}.cpio"
            archive.write_bytes(script_archive(script))
            words = [*ring1, "--initrd", str(cloud.initrd), "--initrd", str(archive)]
            words += ["--net", f"socket,{side}={address}", "--rng", "seeded"]
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                text=True, cwd=Path(__file__).parents[2],
            )  # fmt: skip
            stack.callback(process.kill)
            started.append(stack.enter_context(process))
            assert process.stdout
            said[side] = process.stdout.readline()  # by then it listens
        for side, process in zip(said, started, strict=True):
            out, error = process.communicate(timeout=300)
            said[side] += out
            assert process.returncode == 0, error[-2000:]
    (sent,) = re.findall(r"SENT ([0-9a-f]{64})", said["connect"])
    (got,) = re.findall(r"GOT ([0-9a-f]{64})", said["listen"])
    assert got == sent


@pytest.mark.slow
def test_pages_that_linux_frees_go_back_to_the_host(cloud: Boot) -> None:
    """Free page reporting: no balloon is inflated, memory that was used and freed is reported."""
    machine: list[VM] = []
    released: list[int] = []

    def look() -> None:
        released.append(machine[0].balloon.released)

    fill = "dd if=/dev/zero of=/root/fill bs=1M count=96 2> /dev/null; rm /root/fill; sleep 6"
    steps: list[tuple[bytes, Any]] = [
        (PROMPT, b"sleep 6; echo MA''RK\n"),
        (b"MARK", look),
        (PROMPT, f"{fill}; echo MA''RK\n".encode()),
        (b"MARK", look),
        (PROMPT, b"poweroff\n"),
    ]
    with cloud.vm(Console(steps), balloon="on", cmdline=QUIET) as vm:
        machine.append(vm)
        assert vm.run().reason == "poweroff"
        assert vm.balloon.actual == 0
    idle, again = released
    assert idle > 100 * MIB, "what is free after the start"
    assert again - idle > 80 * MIB, "what was free, then used, then freed"
