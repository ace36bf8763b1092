"""How the tests of this folder start the program."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parent / "program.py"
ROOT = Path(__file__).parents[3]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT)]).strip(os.pathsep),
    "PYTHONDONTWRITEBYTECODE": "1",
}
ENVIRONMENT.pop("RING1_DEBUG", None)

Start = Callable[..., "subprocess.Popen[bytes]"]
Ring1 = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(name="ring1")
def _ring1() -> Ring1:
    """Run the program with a scenario to its end."""

    def run(*words: object, scenario: str = "quiet", **options: Any) -> Any:
        command = [sys.executable, str(PROGRAM), scenario, *map(str, words)]
        options = {"stdin": subprocess.DEVNULL, "env": ENVIRONMENT, **options}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)

    return run


@pytest.fixture(name="start")
def _start() -> Any:
    """Start the program and leave it running; it is ended with the test."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*words: object, scenario: str, **options: Any) -> "subprocess.Popen[bytes]":
        command = [sys.executable, str(PROGRAM), scenario, *map(str, words)]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        environment = {**ENVIRONMENT, **options.pop("more", {})}
        process = subprocess.Popen(command, env=environment, **{**pipes, **options})
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture(name="image")
def _image(tmp_path: Path) -> Path:
    path = tmp_path / "guest.bin"
    path.write_bytes(b"\xfa\xf4\xeb\xfd")
    return path
