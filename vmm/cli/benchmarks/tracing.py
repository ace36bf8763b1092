"""What a trace to a file costs: slices of a run, one beside the other, with it and without it."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from vmm.cli.benchmarks.machines import MEMORY, image
from vmm.cli.benchmarks.marks import MarkReader
from vmm.cli.benchmarks.row import Bound, Row

if TYPE_CHECKING:
    from vmm import VM

IMAGE: Final = "bench_costs.elf"
_LONGER: Final = 2  # so many times the repetitions of the costs
_BEHIND: Final = ("mov-cr0", "clts", "rdmsr-fs-base")  # what the image measures after the exits
_SLICE: Final = 2_000_000  # cycles: about a thousand exits
_EXITS: Final = {
    "cpuid": "CPUID exit",
    "out": "OUT exit",
    "rdmsr-apic-base": "RDMSR exit",
    "mmio-load": "MMIO load exit",
    "mmio-store": "MMIO store exit",
}
_LIMIT_US: Final = 1.0
_LIMIT_RATIO: Final = 1.02


@dataclass(frozen=True, slots=True)
class _Slice:
    """What was repeated all the while, if it was one thing; exits made; CPU seconds."""

    name: str | None
    exits: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Subject:
    """A VM that runs the image in short slices."""

    vm: "VM"
    marks: MarkReader

    def slice(self) -> _Slice:
        """Run on."""
        name, exits, began = self.marks.measuring, self._exits(), time.process_time()
        ended = self.vm.run_until(self.vm.clock.now + _SLICE) is not None
        spent = time.process_time() - began
        same = name == self.marks.measuring and not ended
        return _Slice(name if same else None, self._exits() - exits, spent)

    def _exits(self) -> int:
        return self.vm.exits[-1].sequence if self.vm.exits else 0


def measure(_runs: int, percent: int) -> list[Row]:
    """Return a row an exit, in microseconds that tracing adds, and one for nothing attached.

    Two VMs run the same slices in turns, so that noise hits both; one is recorded in every second
    slice, the other never was.
    """
    added: dict[str, list[float]] = {name: [] for name in _EXITS}
    ratios: list[float] = []
    with _subject(percent) as never, _subject(percent) as watched:
        turn = 0
        while not never.vm.is_stopped() and never.marks.measuring not in _BEHIND:
            recorded = turn % 4 in (0, 3)
            plain, other = _pair(never, watched, recorded=recorded, swap=bool(turn & 1))
            if plain.name in _EXITS and recorded:
                added[plain.name].append((other.seconds - plain.seconds) / plain.exits * 1e6)
            elif plain.name in _EXITS:
                ratios.append(other.seconds / plain.seconds)
            turn += 1
    name = "exits, nothing attached"
    return [
        *(
            _row(f"{_EXITS[name]}, traced to a file", "us", added[name], _LIMIT_US)
            for name in _EXITS
        ),
        _row(name, "of before", ratios, _LIMIT_RATIO),
    ]


def _pair(
    never: _Subject, watched: _Subject, *, recorded: bool, swap: bool
) -> tuple[_Slice, _Slice]:
    """The same slice of both; which one goes first alternates."""
    with _recorded(watched.vm) if recorded else nullcontext():
        if swap:
            other, plain = watched.slice(), never.slice()
        else:
            plain, other = never.slice(), watched.slice()
    return plain, other


@contextmanager
def _subject(percent: int) -> Iterator[_Subject]:
    from vmm import VM

    marks = MarkReader(time.process_time)
    cmdline = str(percent * _LONGER)
    with VM(
        image(IMAGE), memory=MEMORY, cmdline=cmdline, serial_output=marks.feed, timing="cycle"
    ) as vm:
        yield _Subject(vm, marks)


def _row(name: str, unit: str, values: list[float], limit: float) -> Row:
    """A row of the median."""
    value = median(values) if values else float("nan")
    note = f"{len(values)} pairs of slices"
    return Row(
        "trace",
        name,
        f"{unit} more" if unit == "us" else unit,
        value,
        bounds=(Bound(unit, value, limit),),
        note=note,
    )


@contextmanager
def _recorded(vm: "VM") -> Iterator[None]:
    """Every entry and exit to a file of records, on the disk where temporary files are."""
    from vmm.observe.trace.recording import RecordFile, Recording
    from vmm.trace_options import TraceFile

    with tempfile.TemporaryDirectory(prefix="ring1-") as folder:
        file = RecordFile(TraceFile.of(Path(folder) / "bench.ring"))
        recording = Recording(vm, file, lambda _line: None)
        yield
        recording.stop()
