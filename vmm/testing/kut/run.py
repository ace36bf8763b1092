"""One image: booted with its environment, its lines read, its end judged."""

import re
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from hwmodel.arch.sourced import ModelError
from vmm.config import parse_size
from vmm.errors import Ring1Error
from vmm.sched.build import turns_of
from vmm.testing.kut.config import KutTest
from vmm.vm import VM

MOST_INSTRUCTIONS: Final = 20_000_000_000
_SUMMARY: Final = re.compile(r"SUMMARY: (\d+) tests?(.*)")
_SKIPS: Final = re.compile(r"SKIP|not supported|not available|unsupported")
_PASSED: Final = 0
_SKIPPED: Final = (77, 77 >> 1)
"""The library halves the status where it leaves by a port whose value QEMU doubles (report.c)."""
_ABORTED: Final = (127, 127 >> 1)
_LAST_LINES: Final = 12


class Verdict(StrEnum):
    """How a test ended, in the words of kvm-unit-tests."""

    PASS = "PASS"
    FAIL = "FAIL"
    SKIP = "SKIP"
    TIMEOUT = "TIMEOUT"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True)
class KutResult:
    """One line of the table. `seconds` are the host's CPU time."""

    name: str
    verdict: Verdict
    passes: int = 0
    fails: int = 0
    skips: int = 0
    seconds: float = 0.0
    instructions: int = 0
    reason: str = ""
    failed: tuple[str, ...] = ()
    """The names of the checks that failed."""
    tail: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self) | {"verdict": str(self.verdict)}

    @classmethod
    def of_plain(cls, table: dict[str, Any]) -> "KutResult":
        """Read what `plain` returned."""
        changed = {key: tuple(table[key]) for key in ("failed", "tail")}
        return cls(**table | changed | {"verdict": Verdict(table["verdict"])})


def environment(test: KutTest) -> str:
    """Return what the images read about their machine (their first module)."""
    size = parse_size(test.memory) >> 20
    return f"NR_CPUS={test.cpus}\nMEMSIZE={size}\nMEMLIMIT={size}\nTEST_DEVICE=1\n"


def run_test(
    test: KutTest, cpu_seconds: Callable[[], float], scale: float = 1.0, **options: Any
) -> KutResult:
    """Run one; whatever happens is a result. The timeout is the file's, times `scale`."""
    if test.why_not:
        return KutResult(test.name, Verdict.SKIP, reason=test.why_not)
    began, serial = cpu_seconds(), bytearray()
    try:
        reason, value, instructions = _boot(test, serial, cpu_seconds, scale, options)
    except (Ring1Error, ModelError) as error:
        return KutResult(test.name, Verdict.ERROR, reason=str(error))
    lines = serial.decode(errors="replace").replace("\r", "").splitlines()
    return _judge(test.name, lines, reason, value, cpu_seconds() - began, instructions)


def _boot(
    test: KutTest, serial: bytearray, cpu_seconds: Callable[[], float], scale: float,
    options: dict[str, Any],
) -> tuple[str, int | None, int]:  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder) / "env"
        module.write_text(environment(test))
        settings: dict[str, Any] = {"cpu_model": test.processor.file(Path(folder))}
        settings |= {"timing": "cycle"} | options
        with VM(
            test.image, memory=test.memory, cpus=test.cpus, cmdline=test.arguments,
            initrds=[module], serial_output=serial.extend, reboot=False,
            max_instructions=MOST_INSTRUCTIONS, **settings,
        ) as vm:  # fmt: skip
            turns_of(vm.scheduler).quantum = _TURN
            ends = cpu_seconds() + test.timeout * scale
            result = None
            while result is None and cpu_seconds() < ends:
                result = vm.run_until(vm.clock.now + _SLICE)
            if result is None:
                return "timeout", None, vm.pcpu.instructions
            value = result.status >> 1 if result.reason == "debug_exit" else None
            return result.reason, value, result.instructions


_SLICE: Final = 200_000_000
"""Cycles between two looks at the clock."""
_TURN: Final = 1 << 13
"""Cycles. Tests of two processors wait for each other ten thousands of times, and expect each to
have a core: a turn of the usual length would be spent with waiting every time."""


def _judge(
    name: str, lines: list[str], reason: str, value: int | None, seconds: float, instructions: int
) -> KutResult:
    failed = tuple(line[6:] for line in lines if line.startswith("FAIL: "))
    passes = sum(line.startswith("PASS: ") for line in lines)
    skips = sum(line.startswith("SKIP: ") for line in lines)
    if reason == "timeout":
        verdict, why = Verdict.TIMEOUT, f"no end after {seconds:.0f} s of CPU time"
    elif value in _SKIPPED:
        verdict, why = Verdict.SKIP, next(filter(_SKIPS.search, lines), "")
    elif value == _PASSED and not failed:
        verdict, why = Verdict.PASS, ""
    else:
        verdict = Verdict.FAIL
        why = f"status {value}" if value is not None else reason
        why = "aborted" if value in _ABORTED else why
        summary = [found[0] for line in lines if (found := _SUMMARY.search(line))]
        why = f"{why}; {summary[-1]}" if summary else why
    return KutResult(
        name, verdict, passes, len(failed), skips, round(seconds, 1), instructions, why, failed,
        tuple(lines[-_LAST_LINES:]),
    )  # fmt: skip
