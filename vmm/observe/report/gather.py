"""What a report shows of a trace: exits over time, where they came from, what they were about."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from hwmodel.arch.exits import ExitReason as R
from hwmodel.arch.operations import Operation
from hwmodel.cpu.recording import Note
from vmm.observe.trace.places import Places
from vmm.observe.trace.records import Enter, Leave, Told, Trace

SLOTS: Final = 120
"""Columns of the chart over time."""
_NAMES: Final = {int(reason): reason.name for reason in (*R, *Operation)}
Symbol = Callable[[int], str]


@dataclass(slots=True)
class Site:
    """An instruction that exits: how often, what that took in cycles, what it is called."""

    rip: int
    reason: str
    count: int = 0
    cycles: int = 0
    where: str = ""


@dataclass(slots=True)
class Target:
    """Something of the machine that exits are about: a port, an address, an MSR."""

    kind: str
    name: str
    device: str
    reads: int = 0
    writes: int = 0


@dataclass(slots=True)
class Report:
    """All that the page shows; cycles unless said otherwise."""

    image: str
    frequency: int
    cpus: int
    technique: str
    timing: str
    cycles: int = 0
    instructions: int = 0
    over_time: list[Counter[str]] = field(default_factory=list)
    exits: Counter[str] = field(default_factory=Counter)
    exit_cycles: Counter[str] = field(default_factory=Counter)
    ledger: dict[str, int] = field(default_factory=dict)
    sites: list[Site] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    is_cut: bool = False
    """Whether the records begin after the run did."""


def gather(trace: Trace, *, symbol: Symbol, most: int = 40) -> Report:
    """Read all records once (and once for where they end); keep the `most` hottest of each."""
    head = trace.header
    report = Report(head.image, head.frequency, head.cpus, head.technique, head.timing)
    report.is_cut, report.ledger = trace.is_cut, dict(head.ledger)
    first, last = _span(trace)
    report.cycles = last
    report.over_time = [Counter() for _ in range(SLOTS)]
    sites: dict[tuple[int, str], Site] = {}
    targets: dict[tuple[str, int], Target] = {}
    places, left = Places(head.places), dict[int, tuple[Leave, Site]]()
    for record in trace:
        if isinstance(record, Leave):
            report.instructions = record.instructions
            if not record.is_stop:
                site = _leave(report, sites, record, first, last)
                left[record.vcpu] = record, site
                _register(targets, record)
        elif isinstance(record, Enter):
            _enter(report, left.pop(record.vcpu, None), record)
        else:
            _access(targets, record, places)
    report.sites = sorted(sites.values(), key=lambda s: (-s.count, s.rip, s.reason))[:most]
    for site in report.sites:
        site.where = symbol(site.rip)
    hottest = sorted(targets.values(), key=lambda t: (-t.reads - t.writes, t.kind, t.name))
    report.targets = hottest[:most]
    return report


def _span(trace: Trace) -> tuple[int, int]:
    cycles = [record.cycle for record in trace if not isinstance(record, Told)]
    return (min(cycles), max(cycles)) if cycles else (0, 0)


def _leave(
    report: Report, sites: dict[tuple[int, str], Site], leave: Leave, first: int, last: int
) -> Site:
    name = _NAMES.get(leave.reason & 0xFFFF, str(leave.reason & 0xFFFF))
    report.exits[name] += 1
    slot = (leave.cycle - first) * SLOTS // max(1, last - first + 1)
    report.over_time[slot][name] += 1
    site = sites.get((leave.rip, name))
    if site is None:
        site = sites[leave.rip, name] = Site(leave.rip, name)
    site.count += 1
    return site


def _enter(report: Report, left: tuple[Leave, Site] | None, enter: Enter) -> None:
    if left is None:
        return
    leave, site = left
    cycles = enter.cycle - leave.left_at
    site.cycles += cycles
    report.exit_cycles[site.reason] += cycles


def _register(targets: dict[tuple[str, int], Target], leave: Leave) -> None:
    """MSRs are named by the exit itself, and so is what an EPT violation was about."""
    reason = leave.reason & 0xFFFF
    if reason in (R.MSR_READ, R.MSR_WRITE):
        number = leave.rcx & 0xFFFF_FFFF
        _count(targets, "MSR", number, "", writes=reason == R.MSR_WRITE)


def _access(targets: dict[tuple[str, int], Target], told: Told, places: Places) -> None:
    if told.note in (Note.PORT_IN, Note.PORT_OUT):
        writes = told.note is Note.PORT_OUT
        _count(targets, "port", told.a, places.port(told.a), writes=writes)
    elif told.note in (Note.MMIO_READ, Note.MMIO_WRITE):
        writes = told.note is Note.MMIO_WRITE
        _count(targets, "address", told.a, places.memory(told.a), writes=writes)


def _count(
    targets: dict[tuple[str, int], Target], kind: str, number: int, device: str, *, writes: bool
) -> None:
    target = targets.get((kind, number))
    if target is None:
        target = targets[kind, number] = Target(kind, f"{number:#x}", device)
    if writes:
        target.writes += 1
    else:
        target.reads += 1


def top(counts: Counter[str], most: int) -> list[str]:
    """Return the most frequent names, the first ones of equals by name."""
    ordered: Iterable[tuple[str, int]] = sorted(
        counts.items(), key=lambda item: (-item[1], item[0])
    )
    return [name for name, _ in list(ordered)[:most]]
