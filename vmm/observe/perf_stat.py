"""What `perf kvm stat` makes of exits: one row an event, and its two tables.

Layouts from Linux tools/perf/builtin-kvm.c: `classic` is what kernels print up to 6.3, and on a
pipe still; `new` has the columns of the browser since 6.4. Times are those outside the guest: for
an exit from leaving it to being in it again, for ports and device memory as cext/trace.c says.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hwmodel.arch.exits import ExitReason
from hwmodel.arch.operations import Operation
from hwmodel.cpu.recording import Event, Sum

_NAMES: Final = {int(reason): reason.name for reason in (*ExitReason, *Operation)}
_NAME_WIDTH: Final = 20  # decode_str_len
_NS: Final = 1_000_000_000


class Style(StrEnum):
    """Which of perf's layouts."""

    CLASSIC = "classic"
    NEW = "new"


class SortKey(StrEnum):
    """By what rows are sorted, the most first; perf's `time` is the mean."""

    SAMPLE = "sample"
    TIME = "time"


TITLES: Final = {
    Event.EXIT: "VM-EXIT",
    Event.MMIO: "MMIO Access",
    Event.PORT: "IO Port Access",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One event; times in ns, `deviation` the relative standard error of the mean in percent."""

    name: str
    key: int
    samples: int
    total: float
    least: float
    most: float
    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class PerfStat:
    """All rows of one kind of event, sorted; `lost`: events that there was no place for."""

    event: Event
    vcpu: int | None
    rows: tuple[Row, ...]
    lost: int = 0

    @property
    def samples(self) -> int:
        """Of all rows."""
        return sum(row.samples for row in self.rows)

    @property
    def total(self) -> float:
        """Time of all rows, in ns."""
        return sum(row.total for row in self.rows)


def perf_stat(
    sums: Iterable[Sum], frequency: int, *, event: Event = Event.EXIT, vcpu: int | None = None,
    key: SortKey = SortKey.SAMPLE, lost: int = 0,
) -> PerfStat:  # fmt: skip
    """Put rows together from the engine's sums; `frequency` in Hz, `vcpu` None for all."""
    parts: dict[tuple[int, bool], list[Sum]] = {}
    for part in sums:
        if part.event is event and vcpu in (None, part.vcpu):
            parts.setdefault((part.key, part.writes), []).append(part)
    rows = [_row(found, _NS / frequency) for found in parts.values()]
    order = (
        (lambda row: (-row.samples, row.key, row.name))
        if key is SortKey.SAMPLE
        else (lambda row: (-row.mean, row.key, row.name))
    )
    return PerfStat(event, vcpu, tuple(sorted(rows, key=order)), lost)


def _row(parts: list[Sum], ns: float) -> Row:
    """Merge what the virtual CPUs have of one event (Chan et al. 1979 for the squares)."""
    count, mean, squares = 0, 0.0, 0.0
    for part in sorted(parts, key=lambda part: part.vcpu):
        both, apart = count + part.count, part.mean - mean
        squares += part.squares + apart * apart * count * part.count / both
        mean += apart * part.count / both
        count = both
    error = math.sqrt(squares / (count - 1) / count) if count > 1 else 0.0
    first = parts[0]
    return Row(
        _name(first), first.key, count, sum(part.cycles for part in parts) * ns,
        min(part.least for part in parts) * ns, max(part.most for part in parts) * ns, mean * ns,
        100 * error / mean if mean else 0.0,
    )  # fmt: skip


def _name(part: Sum) -> str:
    if part.event is Event.MMIO:
        return f"{part.key:#x}:{'W' if part.writes else 'R'}"
    if part.event is Event.PORT:
        return f"{part.key:#x}:{'POUT' if part.writes else 'PIN'}"
    return str(_NAMES.get(part.key, "UNKNOWN"))


def table(stat: PerfStat, style: Style) -> Iterator[str]:
    """Lines of the table, without line ends."""
    yield from classic(stat) if style is Style.CLASSIC else new(stat)


def classic(stat: PerfStat) -> Iterator[str]:
    """`perf kvm stat report` on a pipe: print_result() of builtin-kvm.c."""
    who = "all VCPUs" if stat.vcpu is None else f"VCPU {stat.vcpu}"
    yield from ("", "", f"Analyze events for all VMs, {who}:", "")
    yield (
        f"{TITLES[stat.event]:>{_NAME_WIDTH}} {'Samples':>10} {'Samples%':>9} {'Time%':>9} "
        f"{'Min Time':>11} {'Max Time':>11} {'Avg time':>16} "
    )
    yield ""
    for row in stat.rows:
        yield (
            f"{row.name[: _NAME_WIDTH - 1]:>{_NAME_WIDTH}} {row.samples:>10} "
            f"{_percent(row.samples, stat.samples):8.2f}% {_percent(row.total, stat.total):8.2f}% "
            f"{row.least / 1000:9.2f}us {row.most / 1000:9.2f}us "
            f"{row.total / row.samples / 1000:9.2f}us ( +-{row.deviation:7.2f}% )"
        )
    total = stat.total / 1000
    yield from (
        "", f"Total Samples:{stat.samples}, Total events handled time:{total:.2f}us.", "",
    )  # fmt: skip
    if stat.lost:
        yield from ("", f"Lost events: {stat.lost}", "")


_COLUMNS: Final = (
    ("Event name", 40), ("Samples", 12), ("Sample%", 12), ("Time (ns)", 12), ("Time%", 12),
    ("Max Time (ns)", 14), ("Min Time (ns)", 14), ("Mean Time (ns)", 14),
)  # fmt: skip


def new(stat: PerfStat) -> Iterator[str]:
    """The columns of perf's browser since Linux 6.4, with its title and its widths."""
    yield f"KVM event statistics ({len(stat.rows)} entries)"
    yield "  ".join(f"{title:>{width}}" for title, width in _COLUMNS)
    for row in stat.rows:
        cells = (
            row.name, row.samples, f"{_percent(row.samples, stat.samples):.2f}%", int(row.total),
            f"{_percent(row.total, stat.total):.2f}%", int(row.most), int(row.least),
            int(row.mean),
        )  # fmt: skip
        yield "  ".join(
            f"{cell:>{width}}" for cell, (_, width) in zip(cells, _COLUMNS, strict=True)
        )
    if stat.lost:
        yield f"Lost events: {stat.lost}"


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else 0.0
