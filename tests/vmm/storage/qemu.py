"""qemu-img, where it is installed: an independent reader, writer and judge of images."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

QEMU_IMG = shutil.which("qemu-img")
QEMU_IO = shutil.which("qemu-io")


def need() -> str:
    if QEMU_IMG is None:
        pytest.skip("qemu-img is not installed")
    return QEMU_IMG


def run(*words: str | Path) -> str:
    done = subprocess.run([need(), *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


def create(path: Path, size: int, *options: str) -> Path:
    run("create", "-q", "-f", "qcow2", *options, path, str(size))
    return path


def check(path: Path) -> dict[str, Any]:
    """What `qemu-img check` finds: numbers of corruptions and leaks."""
    done = subprocess.run(
        [need(), "check", "--output=json", "-f", "qcow2", str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return {name: found.get(name, 0) for name in ("corruptions", "leaks", "check-errors")}


CLEAN = {"corruptions": 0, "leaks": 0, "check-errors": 0}


def content(path: Path, into: Path) -> bytes:
    run("convert", "-f", "qcow2", "-O", "raw", path, into)
    return into.read_bytes()
