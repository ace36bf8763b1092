"""The real gdb, and guests made for it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
Gdb = Callable[..., str]


@pytest.fixture(name="gdb_program")
def _gdb_program() -> str:
    """The path of gdb; skipped with the reason, or failed if RING1_GDB=required."""
    found = shutil.which("gdb")
    if found is None:
        if os.environ.get("RING1_GDB") == "required":
            pytest.fail("RING1_GDB=required, but gdb is not installed")
        pytest.skip("gdb is not installed: apt-get install gdb")
    return found


@pytest.fixture(name="gdb")
def _gdb(gdb_program: str) -> Iterator[Gdb]:
    """Run `ring1 run --gdb`, and gdb with a script and a file of symbols; return what gdb says."""
    running: list[subprocess.Popen[str]] = []

    def run(script: str, *words: object, symbols: Path | None = None) -> str:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "vmm", "run", "--gdb", "0", "--wait", *map(str, words)]
        ring1: Any = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        running.append(ring1)
        line = ring1.stderr.readline()
        port = re.findall(r"target remote [0-9.]+:(\d+)", line)
        assert port, line + ring1.stderr.read()
        text = f"set pagination off\nset confirm off\ntarget remote 127.0.0.1:{port[0]}\n{script}\n"
        said = subprocess.run(
            [gdb_program, "-q", "-nx", *([str(symbols)] if symbols else [])], input=text,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        return said.stdout + said.stderr

    yield run
    for ring1 in running:
        ring1.kill()
        ring1.communicate()


def compiled(folder: Path, name: str, source: str, *options: str) -> Path:
    """Compile a source to an ELF file."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is needed to build the guest")
    (folder / name).write_text(source)
    out = folder / f"{name}.elf"
    command = [
        "gcc", "-g", "-O1", "-static", "-nostdlib", "-no-pie", "-ffreestanding", "-fno-pic",
        "-mno-red-zone", "-mgeneral-regs-only", "-fno-stack-protector", "-fcf-protection=none",
        "-Wl,--build-id=none", "-Wl,-z,max-page-size=4096", *options, "-o", str(out),
        str(folder / name),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out
