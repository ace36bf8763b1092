"""Killed at any moment: what the guest had flushed is there, and the image is sound.

RING1_KILLS=100 kills so often for each kind of image.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.vmm.storage import qemu
from tests.vmm.virtio.crash import SECTORS, allowed
from vmm.storage.opening import open_image

SIZE = SECTORS * 512
ROOT = Path(__file__).parents[3]


def make(kind: str, path: Path) -> None:
    if kind == "raw":
        path.write_bytes(bytes(SIZE))
    else:
        qemu.create(path, SIZE, "-o", "cluster_size=4096" if kind == "small" else "compat=1.1")


def kill_while_it_writes(path: Path, seed: int, wait: float) -> int:
    """Run the torture until some flushes have ended and `wait` seconds more; return flushes."""
    words = [sys.executable, "-m", "tests.vmm.virtio.crash", str(path), str(seed)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT) as guest:
        assert guest.stdout is not None
        assert guest.stdout.readline() == b"1\n"
        time.sleep(wait)
        guest.kill()
        rest = guest.stdout.read().split(b"\n")[:-1]
    return int(rest[-1]) if rest else 1


@pytest.mark.parametrize("kind", ["raw", "qcow2", "small"])
@pytest.mark.parametrize("seed", range(1, 1 + int(os.environ.get("RING1_KILLS", "2"))))
def test_flushed_data_survives_a_kill(kind: str, seed: int, tmp_path: Path) -> None:
    path = tmp_path / "disk"
    make(kind, path)
    wait = random.Random(f"{kind}{seed}").uniform(0, 0.4)
    flushes = kill_while_it_writes(path, seed, wait)
    if kind != "raw":
        found = qemu.check(path)
        assert (found["corruptions"], found["check-errors"]) == (0, 0)
    image, data = open_image(path), bytearray(SIZE)
    image.read(0, [memoryview(data)])
    image.close()
    may = allowed(seed, flushes)
    wrong = [s for s in may if bytes(data[512 * s : 512 * s + 512]) not in may[s]]
    assert wrong == [], (flushes, len(wrong))
    untouched = (s for s in range(SECTORS) if s not in may)
    assert all(data[512 * s : 512 * s + 512] == bytes(512) for s in untouched)


def test_the_judge_can_fail() -> None:
    """After some flushes hardly any sector is free to hold anything else."""
    may = allowed(3, 20)
    assert sum(len(held) == 1 for held in may.values()) > len(may) * 0.7
    assert all(bytes(512 * [7]) not in held for held in may.values())
