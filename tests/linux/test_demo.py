"""`ring1 demo linux` and `ring1 run vmlinuz` as processes: a terminal, none, no apt."""

import hashlib
import os
import pty
import secrets
import select as poll
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zstandard

from tests.linux.guests import PROMPT, Boot
from tests.vmm.cli.test_packages import World
from vmm.cli.demo import demo_words
from vmm.cli.kernel_modules import select
from vmm.cli.kernels import fetch_busybox

ROOT = Path(__file__).parents[2]
TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "vmm", *map(str, words)]


def ring1(*words: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*words), cwd=ROOT, env={**os.environ, **environment}, capture_output=True,
        text=True, timeout=600, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


class Typist:
    """A process on a terminal of its own, and somebody who reads and types."""

    def __init__(self, *words: object) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, *command(*words)],
            cwd=ROOT, start_new_session=True, stdin=slave, stdout=slave, stderr=slave,
        )  # fmt: skip
        os.close(slave)
        self.seen = b""

    def read_until(self, text: bytes, start: int = 0) -> int:
        """Read until ``text`` appears behind ``start``; return where it ends."""
        until = time.monotonic() + 300
        while (at := self.seen.find(text, start)) < 0:
            assert time.monotonic() < until, self.seen[-2000:]
            if poll.select([self.master], [], [], 1)[0]:
                try:
                    self.seen += os.read(self.master, 65536)
                except OSError:  # the other side is gone
                    assert text in self.seen, self.seen[-2000:]
        return at + len(text)

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def end(self) -> int:
        """Read to the end; return the status."""
        self.read_until(b"status")
        try:
            return self.process.wait(timeout=60)
        finally:
            os.close(self.master)


def test_on_a_terminal_to_a_prompt_and_off(cloud: Boot) -> None:
    typist = Typist("demo", "linux", "--cmdline", "quiet cryptomgr.notests")
    at = typist.read_until(PROMPT)
    assert b"leave with poweroff, or with Ctrl-A x" in typist.seen
    nonce = secrets.token_hex(16)
    typist.type(f"echo {nonce} | sha256sum\r".encode())
    digest = hashlib.sha256(f"{nonce}\n".encode()).hexdigest()
    at = typist.read_until(digest.encode(), at)
    typist.read_until(PROMPT, at)
    typist.type(b"poweroff\r")
    assert typist.end() == 0
    assert b"VM-exits" in typist.seen


@pytest.mark.parametrize(("words", "device"), [([], "ttyS0"), (["--console=virtio"], "hvc0")])
def test_the_shell_is_where_the_terminal_is(cloud: Boot, words: list[str], device: str) -> None:
    typist = Typist("demo", "linux", "--cmdline", "quiet cryptomgr.notests", *words)
    at = typist.read_until(PROMPT)
    typist.type(b"tty; poweroff\r")
    typist.read_until(f"/dev/{device}".encode(), at)
    assert typist.end() == 0


@pytest.mark.parametrize(("words", "last"), [([], "ttyS0"), (["--screen"], "tty0")])
def test_words_for_the_kernel(cloud: Boot, words: list[str], last: str) -> None:
    asked = demo_words(["linux", "--cmdline", "nokaslr", *words])
    assert asked is not None
    kernel_words = asked[asked.index("--cmdline") + 1].split()
    assert kernel_words[-2:] == [f"console={last}", "nokaslr"]
    assert asked[len(asked) - len(words) :] == words


@pytest.mark.slow
def test_ctrl_a_x_leaves(cloud: Boot) -> None:
    typist = Typist(
        "run", cloud.kernel.image, "--initrd", cloud.initrd, "--cmdline", "console=ttyS0"
    )
    typist.read_until(b"Linux version")
    typist.type(b"\x01x")
    assert typist.end() == 130


@pytest.mark.slow
def test_without_a_terminal_a_script_runs(cloud: Boot) -> None:
    done = ring1("demo", "linux")
    assert done.returncode == 0, done.stderr[-2000:]
    assert cloud.kernel.release in done.stdout.rpartition("ring1: ready")[2]
    assert hashlib.sha256(b"ring 1\n").hexdigest() in done.stdout
    assert "powers off by itself" in done.stderr
    assert "VM-exits" in done.stderr


def test_without_packages_the_demo_kernel(tmp_path: Path) -> None:
    done = ring1("demo", "linux", PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 0
    assert "no Linux: this host has no apt-get" in done.stderr
    assert "Hello from ring 0" in done.stdout


@pytest.mark.slow
def test_on_ubuntu_its_own_kernel(cloud: Boot, tmp_path: Path) -> None:
    """A pretended one: no cloud flavour, modules in a package of their own, packed with zstd."""
    world, release = World(tmp_path), cloud.kernel.release
    image, modules = f"linux-image-{release}", f"linux-modules-{release}"
    world.package("linux-image-virtual", f"{image}, linux-headers-{release}")
    world.package(image, f"kmod, {modules}")
    world.package(modules)
    world.package("busybox-static")
    content = tmp_path / "content"
    (content / image / "boot").mkdir()
    shutil.copy(cloud.kernel.image, content / image / "boot" / f"vmlinuz-{release}")
    for module in select(cloud.kernel.modules):
        path = content / modules / "lib/modules" / release / f"{module.path}.zst"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(zstandard.compress(module.data))
    (content / "busybox-static" / "bin").mkdir()
    shutil.copy(fetch_busybox(), content / "busybox-static" / "bin")
    done = ring1("demo", "linux", "--rng", "seeded", **world.environment())
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"Linux {release} from linux-image-virtual; it powers off by itself" in done.stderr
    assert "update" in world.asked()  # whether the cloud flavour is only missing in the lists
    assert "Hypervisor detected: KVM" in done.stdout
    assert hashlib.sha256(b"ring 1\n").hexdigest() in done.stdout
    assert list((tmp_path / "cache/ring1/initrd").iterdir())


@pytest.mark.parametrize("known", [True, False], ids=["in the lists", "nowhere"])
def test_without_a_network_the_demo_kernel(tmp_path: Path, known: bool) -> None:
    world = World(tmp_path)
    if known:
        world.package("linux-image-cloud-amd64", "linux-image-6.1.0-9-cloud-amd64")
        world.package("linux-image-6.1.0-9-cloud-amd64")
    world.unflag("online")
    done = ring1("demo", "linux", **world.environment())
    assert done.returncode == 0
    said = [line for line in done.stderr.splitlines() if "no Linux" in line]
    assert len(said) == 1
    assert "Could not resolve host; the demo kernel instead" in said[0]
    assert "Hello from ring 0" in done.stdout


@pytest.mark.parametrize(
    "words", [(), ("windows",), ("linux", "--flavour", "rt"), ("hello", "--memory", "much")]
)
def test_bad_words(words: tuple[str, ...]) -> None:
    done = ring1("demo", *words)
    assert done.returncode == 64
    assert len(done.stderr.splitlines()) == 1


def test_help() -> None:
    done = ring1("demo", "--help")
    assert done.returncode == 0
    assert "linux" in done.stdout


def test_a_kernel_that_is_cut_short(cloud: Boot, tmp_path: Path) -> None:
    image = cloud.kernel.image.read_bytes()
    (tmp_path / "short").write_bytes(image[: len(image) // 2])
    damaged = bytearray(image)
    damaged[len(image) // 2 : len(image) // 2 + 4096] = bytes(4096)
    (tmp_path / "damaged").write_bytes(damaged)
    for name, word in (("short", "truncated"), ("damaged", "damaged")):
        done = ring1("run", tmp_path / name)
        assert done.returncode == 64
        assert len(done.stderr.splitlines()) == 1
        assert word in done.stderr
