"""A run from outside: what goes to which stream, statuses, signals, input, the terminal."""

import json
import os
import pty
import select
import signal
import stat
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

import pytest


def test_serial_to_stdout_and_table_to_stderr(ring1: Any, image: Path) -> None:
    done = ring1("run", image)
    assert done.returncode == 0
    assert done.stdout == "hello\n"  # text mode folds the carriage return
    lines = done.stderr.splitlines()
    cpuid, hlt = (
        next(i for i, line in enumerate(lines) if name in line) for name in ("CPUID", "HLT")
    )
    assert cpuid < hlt
    assert "96.8%" in lines[cpuid]
    assert "cycles" in lines[cpuid - 2]
    assert "MSR_READ" not in done.stderr
    assert "halted, status 0: 31 exits, 1,000 instructions" in lines[-1]


def test_json_has_the_keys_of_the_design(ring1: Any, image: Path, tmp_path: Path) -> None:
    keys = [
        *("schema", "status", "reason", "instructions", "cycles", "wall_seconds"),
        *("exits", "exit_cycles", "ledger", "digest", "hardware_exits", "patched"),
    ]
    record = json.loads(ring1("run", image, "--stats", "json").stderr)
    assert list(record) == keys
    assert record["exits"]["CPUID"] == 30
    assert record["digest"] == "00ff" * 16
    path = tmp_path / "stats.json"
    done = ring1("run", image, "--stats", path)
    assert done.stderr == ""
    assert json.loads(path.read_text())["status"] == 0
    assert stat.S_IMODE(path.stat().st_mode) & 0o444
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_a_crash_leaves_the_old_statistics_alone(ring1: Any, image: Path, tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    path.write_text("old")
    assert ring1("run", image, "--stats", path, scenario="crash").returncode == 70
    assert path.read_text() == "old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [image.name, "stats.json"]


def test_serial_file(ring1: Any, image: Path, tmp_path: Path) -> None:
    path = tmp_path / "serial"
    done = ring1("run", image, "--serial-file", path)
    assert (done.stdout, path.read_bytes()) == ("", b"hello\r\n")


def test_the_guest_chooses_its_odd_status(ring1: Any, image: Path) -> None:
    assert ring1("run", image, scenario="exit").returncode == 7


def test_a_stopped_guest_says_where(ring1: Any, image: Path) -> None:
    done = ring1("run", image, scenario="triple")
    assert done.returncode == 66
    assert done.stderr.startswith("ring1: triple fault at 0x1234")
    assert "triple_fault, status 66" in done.stderr
    assert "exit before: HLT at 0x12" in done.stderr


def test_timeout_reaches_a_busy_guest(ring1: Any, image: Path) -> None:
    began = time.monotonic()
    done = ring1("run", image, "--timeout", "0.3", scenario="spin")
    assert done.returncode == 68
    assert "timeout, status 68" in done.stderr
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_with_statistics(start: Any, image: Path, number: int) -> None:
    process = start("run", image, scenario="spin")
    assert process.stdout.readline() == b"spinning\n"
    process.send_signal(number)
    assert process.wait(30) == 130
    assert b"interrupted, status 130" in process.stderr.read()


def test_a_second_signal_ends_at_once(start: Any, image: Path) -> None:
    process = start("run", image, scenario="deaf")
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130


def test_a_reader_that_leaves_ends_the_run_quietly(start: Any, image: Path) -> None:
    process = start("run", image, scenario="flood")
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(30) == 130
    text = process.stderr.read()
    assert b"Traceback" not in text
    assert b"ring1:" not in text


def test_input_from_a_pipe_and_a_file(ring1: Any, image: Path, tmp_path: Path) -> None:
    assert ring1("run", image, scenario="echo", stdin=None, input="abc Z").stdout == "ready\nabc Z"
    path = tmp_path / "input"
    path.write_bytes(b"1" * 100_000 + b"Z")
    with path.open() as stream:
        assert ring1("run", image, scenario="echo", stdin=stream).stdout == (
            "ready\n" + "1" * 100_000 + "Z"
        )


def test_a_closed_stdin(ring1: Any, image: Path) -> None:
    def close_stdin() -> None:
        os.close(0)

    assert ring1("run", image, stdin=None, preexec_fn=close_stdin).returncode == 0


class Terminal:
    """A pseudo-terminal with the program on its other side."""

    def __init__(self, start: Any, image: Path, scenario: str) -> None:
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.process = start(
            "run", image, scenario=scenario, stdin=self.slave,
            start_new_session=True, more={"TAKE_TERMINAL": "1"},
        )  # fmt: skip

    def expect(self, text: bytes) -> None:
        seen = b""
        while text not in seen:
            assert select.select([self.process.stdout], [], [], 30)[0], seen
            piece = os.read(self.process.stdout.fileno(), 100)
            assert piece, seen
            seen += piece

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


def open_terminal(start: Any, image: Path, scenario: str) -> Terminal:
    terminal = Terminal(start, image, scenario)
    terminal.expect(b"\n")
    return terminal


def test_terminal_keys_go_to_the_guest_and_the_mode_comes_back(start: Any, image: Path) -> None:
    terminal = open_terminal(start, image, "echo")
    during = termios.tcgetattr(terminal.slave)
    assert not during[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
    terminal.type(b"a\x03\x01\x01b\r")
    terminal.expect(b"a\x03\x01b\r")
    terminal.type(b"\x01zZ")
    terminal.expect(b"\x01zZ")
    assert terminal.process.wait(30) == 0
    assert termios.tcgetattr(terminal.slave) == terminal.before
    terminal.close()


@pytest.mark.parametrize("how", ["keys", "signal", "crash"])
def test_the_terminal_is_restored_however_it_ends(start: Any, image: Path, how: str) -> None:
    if how == "crash":
        terminal = Terminal(start, image, "crash")
    else:
        terminal = open_terminal(start, image, "spin")
    if how == "keys":
        terminal.type(b"\x01x")
    elif how == "signal":
        terminal.process.send_signal(signal.SIGTERM)
    assert terminal.process.wait(30) == (70 if how == "crash" else 130)
    assert termios.tcgetattr(terminal.slave) == terminal.before
    terminal.close()


def test_a_terminal_that_hangs_up_ends_the_run(start: Any, image: Path) -> None:
    terminal = open_terminal(start, image, "spin")
    terminal.close()
    assert terminal.process.wait(30) == 130
