"""`ring1 run` with a real guest, as a process: what a newcomer does."""

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.images import EXIT, OFF, elf64

ROOT = Path(__file__).parents[2]
HELLO = "".join(f"mov al, {ord(c)}; out 0xe9, al;" for c in "hello\n")
ECHO = f"""
    wait:
        mov dx, 0x3fd
        in al, dx
        test al, 1
        jz wait
        mov dx, 0x3f8
        in al, dx
        out dx, al
        cmp al, 0x71
        jne wait
        {OFF}
    """


TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "vmm", "run", *map(str, words)]


def ring1(*words: object, **options: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*words),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture(name="image")
def _image(tmp_path: Path) -> Path:
    path = tmp_path / "guest.elf"
    path.write_bytes(elf64(f"{HELLO} cpuid; mov eax, 3; {EXIT}"))
    return path


def test_output_table_and_status(image: Path) -> None:
    done = ring1(image)
    assert done.stdout == "hello\n"
    assert done.returncode == 7
    assert "CPUID" in done.stderr
    assert "IO_INSTRUCTION" in done.stderr


def test_json_is_the_same_each_time_but_for_the_hosts_time(image: Path) -> None:
    first, second = (json.loads(ring1(image, "--stats", "json").stderr) for _ in range(2))
    assert first.pop("wall_seconds") > 0
    second.pop("wall_seconds")
    assert first == second
    assert first["status"] == 7
    assert first["reason"] == "debug_exit"
    assert first["exits"] == {"CPUID": 1, "IO_INSTRUCTION": 7}
    assert len(first["digest"]) == 64


def test_the_demo_runs_without_an_image() -> None:
    done = ring1()
    assert done.returncode == 0
    assert "TEST: Hello" in done.stdout


def test_a_triple_fault_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "guest.elf"
    path.write_bytes(elf64("cpuid; lidt [rip + none]; ud2; none: .quad 0; .quad 0"))
    done = ring1(path, "--no-reboot")
    assert done.returncode == 66
    first = done.stderr.splitlines()[0]
    assert first.startswith("ring1: triple fault")
    assert "RIP 0x" in first
    assert "exit before" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_timeout_ends_a_spinning_guest(tmp_path: Path) -> None:
    path = tmp_path / "guest.elf"
    path.write_bytes(elf64("again: jmp again"))
    done = ring1(path, "--timeout", "0.3")
    assert done.returncode == 68
    assert "timeout" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_the_statistics(tmp_path: Path, number: int) -> None:
    path = tmp_path / "guest.elf"
    path.write_bytes(elf64(f"cpuid; {HELLO} again: jmp again"))
    process = subprocess.Popen(
        command(path, "--timeout", "30"),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "hello\n"  # live, not at the end
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "CPUID" in errors


def test_piped_input_reaches_the_guest(tmp_path: Path) -> None:
    path = tmp_path / "guest.elf"
    path.write_bytes(elf64(ECHO))
    done = subprocess.run(
        command(path, "--max-instructions", "50_000_000".replace("_", "")),
        cwd=ROOT,
        input=b"abcq",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == b"abcq"
    assert done.returncode == 0


def test_on_a_terminal_what_is_typed_is_echoed_by_the_guest(tmp_path: Path) -> None:
    path = tmp_path / "guest.elf"
    path.write_bytes(elf64(ECHO))
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL, *command(path, "--timeout", "30")],
        cwd=ROOT,
        start_new_session=True,
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 20
    while termios.tcgetattr(slave)[3] & termios.ECHO:  # until then the terminal is not its own
        assert time.monotonic() < until
        time.sleep(0.02)
    os.write(master, b"x\x03q")  # Ctrl-C is the guest's on a terminal
    out, _ = process.communicate(timeout=40)
    assert termios.tcgetattr(slave)[3] & termios.ECHO  # given back
    os.close(slave)
    os.close(master)
    assert out == b"x\x03q"
    assert process.returncode == 0


def test_limits_and_memory_are_refused_in_one_line(image: Path) -> None:
    for words in (("--memory", "12X"), ("--max-cycles", "0"), ("--technique", "svm")):
        done = ring1(image, *words)
        assert done.returncode == 64
        assert len(done.stderr.splitlines()) == 1
        assert done.stdout == ""


def test_the_serial_file(image: Path, tmp_path: Path) -> None:
    done = ring1(image, "--serial-file", tmp_path / "out.txt")
    assert done.stdout == ""
    assert (tmp_path / "out.txt").read_text() == "hello\n"
