"""``ring1 fuzz``: random instruction sequences here and on an oracle."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vmm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmm.testing.fuzz.campaign import Findings
    from vmm.testing.fuzz.compare import Difference
    from vmm.testing.fuzz.machines import Machine

_DIFFERS = 1
_SPAN = 19_000  # programs of one task


def fuzz(
    count: Annotated[int, typer.Option(metavar="N", help="Sequences to run.")] = 100_000,
    seed: Annotated[int, typer.Option(metavar="S", help="What they are drawn from.")] = 1,
    first: Annotated[int, typer.Option(metavar="N", help="Number of the first one.")] = 0,
    families: Annotated[
        str, typer.Option(metavar="A,B", help="integer,string,sse,float,mmx,x87 [all].")
    ] = "",
    bits: Annotated[int | None, typer.Option(metavar="32|64", help="Code size [both].")] = None,
    oracle: Annotated[str, typer.Option(metavar="host|qemu", help="Who judges.")] = "host",
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Write each difference as a case.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(metavar="PATH", help="Run recorded steps instead: MOO or JSON.")
    ] = None,
    workers: Annotated[int, typer.Option("-n", metavar="N", help="Processes at once.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A dask scheduler (local: start one).")
    ] = None,
) -> int:
    """Run random instruction sequences on ring1 and on an oracle; shrink what differs."""
    if suite is not None:
        from vmm.cli.steps import run_suite

        if out is not None:
            raise UsageError("--out goes with drawn sequences; the suite's own files are the cases")
        return run_suite(Path(suite), count)
    from vmm.testing.fuzz.campaign import Findings
    from vmm.testing.fuzz.forms import FAMILIES

    chosen = tuple(word for word in families.split(",") if word)
    for word in chosen:
        if word not in FAMILIES:
            raise UsageError(f"--families {word!r} is not one of {', '.join(FAMILIES)}")
    if bits not in (None, 32, 64):
        raise UsageError(f"--bits {bits} is not offered; use 32 or 64")
    if count < 1 or workers < 1 or first < 0:
        raise UsageError("--count and -n are at least 1, --first at least 0")
    machine(oracle)  # a wrong name, or one that is missing, is found out here
    total = Findings()
    for found in _spans(seed, first, count, chosen, bits, oracle, workers, scheduler):
        total.add(found)
        typer.echo(
            f"{total.programs} sequences, {len(total.differences)} differ, "
            f"{sum(total.known.values())} known differences", err=True,
        )  # fmt: skip
    _report(total, oracle, seed, out)
    return _DIFFERS if total.differences or total.deaths else 0


@cache
def machine(name: str) -> "Machine":
    """Return a machine by name, kept for this process. Raises UsageError."""
    from vmm.testing.fuzz.machines import HostMachine, Ring1Machine
    from vmm.testing.fuzz.qemu import QemuMachine

    makers: dict[str, Any] = {"ring1": Ring1Machine, "host": HostMachine, "qemu": QemuMachine}
    if name not in makers:
        raise UsageError(f"--oracle {name!r} is not one of host, qemu; choose one")
    return makers[name]()  # type: ignore[no-any-return]


def span(
    seed: int, first: int, count: int, families: tuple[str, ...], bits: int | None, oracle: str
) -> "Findings":
    """Run some programs: one task of a cluster."""
    from vmm.testing.fuzz.campaign import run_span

    return run_span(seed, first, count, machine("ring1"), machine(oracle), families, bits)


def _spans(
    seed: int, first: int, count: int, families: tuple[str, ...], bits: int | None, oracle: str,
    workers: int, scheduler: str | None,
) -> "Iterator[Findings]":  # fmt: skip
    starts = range(first, first + count, _SPAN)
    tasks = [(seed, n, min(_SPAN, first + count - n), families, bits, oracle) for n in starts]
    if scheduler is None and workers == 1:
        yield from (span(*task) for task in tasks)
        return
    from vmm.testing.spread import LOCAL, spread

    yield from spread(scheduler or LOCAL, span, tasks, workers)


def _report(total: "Findings", oracle: str, seed: int, out: str | None) -> None:
    typer.echo(f"{total.programs} sequences, {total.instructions} instructions against {oracle}")
    for name, number in total.known.most_common():
        typer.echo(f"  known: {number} {name} (docs/ORACLES.md)")
    for number, how in total.deaths:
        typer.echo(f"  sequence {number}: the oracle's process {how}")
    for number, difference in total.differences:
        small = _shrunk(difference, oracle)
        typer.echo(f"  sequence {number} (--seed {seed} --first {number} --count 1) differs:")
        for line in _lines(small):
            typer.echo(f"    {line}")
        if out is not None:
            typer.echo(f"    case: {_write(small, Path(out), f'seed {seed} sequence {number}')}")


def _shrunk(difference: "Difference", oracle: str) -> "Difference":
    from vmm.testing.fuzz.campaign import state_of
    from vmm.testing.fuzz.record import MOST, State, make_batch
    from vmm.testing.fuzz.shrink import shrink

    def judge(programs: list[Any]) -> list[tuple[State, State]]:
        found = []
        for program in programs[:MOST]:  # all in one slot: one batch each
            batch = make_batch([program])
            ours, theirs = machine("ring1").run(batch), machine(oracle).run(batch)
            found.append((state_of(ours, 0), state_of(theirs, 0)))
        return found

    return shrink(difference, judge)


def _lines(difference: "Difference") -> list[str]:
    from vmm.testing.failure import disassemble

    start = difference.program.start
    code = list(disassemble(difference.program.code, start.rip, start.bits))
    return [*code, *(f"ring1, oracle: {line}" for line in difference.lines())]


def _write(difference: "Difference", folder: Path, name: str) -> Path:
    from vmm.testing.fuzz.case import case_of_difference

    path = folder / f"test_{name.replace(' ', '-')}.toml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(case_of_difference(difference, name))
    except OSError as error:
        raise UsageError(f"--out {folder}: {(error.strerror or str(error)).lower()}") from None
    return path
