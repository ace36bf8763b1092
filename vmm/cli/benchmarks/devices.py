"""What virtio devices carry per second of host processor time, with Debian's cloud kernel in front.

The guest reads and writes a disk with dd and talks TCP with a program on the host, by busybox; its
script says a word before and after each, and the processor time of the whole process between the
two words is what it cost: guest, model and back end. QEMU TCG does the same beside it.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from vmm.cli.benchmarks.linux import kernel_and_initrd
from vmm.cli.benchmarks.machines import qemu_boot, qemu_missing, seconds_at
from vmm.cli.benchmarks.row import Bound, Row, middle

_WORDS, _MEMORY = "console=ttyS0 cryptomgr.notests quiet", "256"
_DISK_MIB = 256
_NET_MIB = 64
_DISK_LEAST, _NET_LEAST = 50, 20
_STEPS = {
    "read": ("dd from virtio-blk", _DISK_MIB, _DISK_LEAST),
    "write": ("dd to virtio-blk, with fsync", _DISK_MIB, None),
    "sent": ("TCP from the guest to the host", _NET_MIB, _NET_LEAST),
    "received": ("TCP from the host to the guest", _NET_MIB, None),
}
"""Word -> what it ends, how many MiB that moves, how many a second are to be reached."""

_SCRIPT = """
mark() {{ sleep 0.2; echo "MARK-$1-"; }}
ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0
mark begin
dd if=/dev/vda of=/dev/null bs=1M count={disk} 2> /dev/null
mark read
dd if=/dev/zero of=/dev/vda bs=1M count={disk} conv=fsync 2> /dev/null
mark write
nc 10.0.2.2 {port} -e dd if=/dev/zero bs=64k count={blocks}
mark sent
nc 10.0.2.2 {port} -e dd of=/dev/null bs=64k
mark received
"""

_PEER = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    with server.accept()[0] as peer:
        while peer.recv(1 << 18): pass
    with server.accept()[0] as peer:
        for _ in range(int(sys.argv[1])): peer.sendall(bytes(1 << 20))
"""


def measure(runs: int) -> list[Row]:
    """Return a row for each kind of work; medians of at most three runs, taken in turn."""
    from vmm.cli.packages import PackageError

    with TemporaryDirectory() as name, peer(_NET_MIB) as port:
        folder = Path(name)
        blocks = 16 * _NET_MIB
        try:
            files = kernel_and_initrd(
                folder, _SCRIPT.format(port=port, disk=_DISK_MIB, blocks=blocks)
            )
        except PackageError as error:
            sys.stderr.write(f"ring1: no figures for devices: {error}\n")
            return []
        programs = _programs(*files, folder / "disk")
        rounds = [
            {
                f"{program} {step}": rate
                for program, words in programs.items()
                for step, rate in _rates(words, folder / "disk").items()
            }
            for _ in range(min(runs, 3))
        ]
    return [_row(step, middle(rounds)) for step in _STEPS]


@contextmanager
def peer(mebibytes: int) -> Iterator[int]:
    """Run the program on the host, in a process of its own; yield its port."""
    words = [sys.executable, "-c", _PEER, str(mebibytes)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


def _programs(image: Path, initrd: Path, disk: Path) -> dict[str, list[str]]:
    given = ["--initrd", str(initrd), "--memory", f"{_MEMORY}M", "--cmdline", _WORDS]
    programs = {
        "ring1": [
            *(sys.executable, "-m", "vmm", "run", str(image), *given),
            *("--disk", f"{disk},format=raw", "--net", "user"),
        ]
    }
    if qemu_missing() is None:
        programs["qemu"] = qemu_boot(
            (image, initrd), _WORDS, _MEMORY, "q35", "-drive", f"file={disk},format=raw,if=virtio",
            "-nic", "user,model=virtio-net-pci",
        )  # fmt: skip
    return programs


def _rates(words: list[str], disk: Path) -> dict[str, float]:
    """Run once; MiB per second of processor time, by step."""
    with disk.open("wb") as file:
        file.truncate(_DISK_MIB << 20)
    names = ["begin", *_STEPS]
    marks = seconds_at(words, [f"MARK-{name}-".encode() for name in names])
    return {
        step: _STEPS[step][1] / (end - begin)
        for step, begin, end in zip(_STEPS, marks, marks[1:], strict=False)
    }


def _row(step: str, rates: dict[str, float]) -> Row:
    name, _, least = _STEPS[step]
    rate = rates.get(f"ring1 {step}", float("nan"))
    peers = {"qemu": rates[f"qemu {step}"]} if f"qemu {step}" in rates else {}
    bounds = () if least is None else (Bound("MiB/s", rate, least, at_least=True),)
    return Row("devices", name, "MiB/s", rate, peers, bounds)
