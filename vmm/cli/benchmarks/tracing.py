"""What a trace to a file costs: pairs of runs, one beside the other, with it and without it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from vmm.cli.benchmarks.machines import on_ring1
from vmm.cli.benchmarks.row import Bound, Row

if TYPE_CHECKING:
    from vmm import VM

IMAGE: Final = "bench_costs.elf"
PAIRS: Final = 9
_EXITS: Final = {
    "cpuid": "CPUID exit",
    "out": "OUT exit",
    "rdmsr-apic-base": "RDMSR exit",
    "mmio-load": "MMIO load exit",
    "mmio-store": "MMIO store exit",
}
_LIMIT_US: Final = 1.0
_LIMIT_RATIO: Final = 1.02


def measure(runs: int, percent: int) -> list[Row]:
    """Return a row an exit, in microseconds that tracing adds, and one for nothing attached.

    Nothing attached: a recording was there and has been taken out, against one that never was.
    """
    pairs = max(runs, PAIRS)
    plain: list[dict[str, float]] = []
    traced: list[dict[str, float]] = []
    after: list[dict[str, float]] = []
    for number in range(pairs):
        order = [(plain, None), (after, _left)]
        for results, watched in order if number % 2 else order[::-1]:  # in turns
            results.append(on_ring1(IMAGE, percent, watched))
        traced.append(on_ring1(IMAGE, percent, _recorded))
    rows = []
    for name, words in _EXITS.items():
        added = [(t[name] - p[name]) * 1e6 for p, t in zip(plain, traced, strict=True)]
        rows.append(_row(f"{words}, traced to a file", "us more", median(added), "us", _LIMIT_US))
    ratios = [
        sum(a[name] for name in _EXITS) / sum(p[name] for name in _EXITS)
        for p, a in zip(plain, after, strict=True)
    ]
    name = f"exits, nothing attached, {pairs} pairs"
    return [*rows, _row(name, "of before", median(ratios), "of before", _LIMIT_RATIO)]


def _row(name: str, unit: str, value: float, bound: str, limit: float) -> Row:
    return Row("trace", name, unit, value, bounds=(Bound(bound, value, limit),))


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


@contextmanager
def _left(vm: "VM") -> Iterator[None]:
    """A recording that was there and is gone."""
    with _recorded(vm):
        pass
    yield
