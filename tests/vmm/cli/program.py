"""The real command line over a pretended VM, as a process: ``python program.py SCENARIO ARGS...``.

The scenario says what the guest does; everything around it is the real thing.
"""

import fcntl
import os
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import vmm
from vmm.boot.files import plan_for
from vmm.config import Config
from vmm.outcome import Stop, StopReason


@dataclass(frozen=True)
class Result:
    status: int = 0
    reason: str = "halted"
    message: str = ""
    last_exits: tuple[str, ...] = ("CPUID at 0x10", "HLT at 0x12")
    instructions: int = 1000
    cycles: int = 1200
    exits: dict[str, int] = field(default_factory=lambda: {"HLT": 1, "CPUID": 30, "MSR_READ": 0})
    exit_cycles: dict[str, int] = field(default_factory=lambda: {"HLT": 5, "CPUID": 45})
    ledger: dict[str, int] = field(default_factory=lambda: {"guest": 1150, "exit": 50})
    hardware_exits: dict[str, int] = field(default_factory=lambda: {"HLT": 1, "CPUID": 30})
    patched: int = 0

    def digest(self) -> str:
        return "00ff" * 16


class PretendedVM:
    """Plans the boot for real, then plays the scenario instead of running a guest."""

    scenario = "quiet"
    domain = None

    def __init__(
        self,
        image: object = None,
        *,
        config: Config,
        serial_output: Callable[[bytes], None],
        poll_input: Callable[[], bytes],
        wait_idle: Callable[[float], None] | None,
        log: Callable[[str], None],
        tape: object = None,
    ) -> None:
        assert image == config.image
        self.config = config
        del log, tape
        plan_for(config)
        self.write, self.poll, self.wait = serial_output, poll_input, wait_idle
        self.interrupted: str | None = None

    def __enter__(self) -> "PretendedVM":
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def hear_lines(self) -> None:
        """It is said as it comes."""

    def wake(self) -> None:
        """Input is polled for all the time here."""

    def interrupt(self, reason: str) -> None:
        self.interrupted = self.interrupted or reason

    def run(self) -> Result:
        played: Callable[[], Result] = getattr(self, f"play_{self.scenario}")
        return played()

    def play_quiet(self) -> Result:
        self.write(b"hello\r\n")
        return Result()

    def play_exit(self) -> Result:
        stop = Stop.because(StopReason.DEBUG_EXIT, value=3)
        return Result(stop.status, str(stop.reason))

    def play_triple(self) -> Result:
        stop = Stop.because(StopReason.TRIPLE_FAULT, "triple fault at 0x1234 in long mode")
        return Result(stop.status, str(stop.reason), stop.message)

    def play_crash(self) -> Result:
        raise ZeroDivisionError("a bug")

    def play_spin(self) -> Result:
        """Never come back by itself: as a guest that loops in C, deaf to Python's signals."""
        self.write(b"spinning\n")
        while self.interrupted is None:
            time.sleep(0.005)
        stop = Stop.because(StopReason(self.interrupted), "stopped at 0x10")
        return Result(stop.status, str(stop.reason), stop.message)

    def play_echo(self) -> Result:
        """Write back what comes in, until a Z."""
        self.write(b"ready\n")
        while self.interrupted is None:
            data = self.poll()
            if self.wait:
                self.wait(0.05)
            self.write(data)
            if b"Z" in data:
                return Result()
        return self.play_spin()

    def play_flood(self) -> Result:
        while self.interrupted is None:
            self.write(b"x" * 4096)
        return self.play_spin()

    def play_deaf(self) -> Result:
        self.write(b"spinning\n")
        time.sleep(60)
        return Result()


if __name__ == "__main__":
    if os.environ.get("TAKE_TERMINAL"):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    PretendedVM.scenario = sys.argv[1]
    vmm.VM = PretendedVM  # type: ignore[attr-defined, misc, assignment, unused-ignore]
    from vmm.cli import session
    from vmm.cli.main import main

    session.call_chain = lambda vm: []  # nothing ran

    sys.exit(main(sys.argv[2:]))
