"""``ring1 kut``: the kvm-unit-tests images of a folder."""

import fnmatch
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmm.testing.kut.config import KutTest
    from vmm.testing.kut.run import KutResult

_FAILED = 1


def kut(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Images and unittests.cfg.")],
    pattern: Annotated[str, typer.Option("-k", metavar="PATTERN", help="Names to run.")] = "*",
    workers: Annotated[int, typer.Option("-n", metavar="N", help="Processes at once.")] = 1,
    junit: Annotated[str | None, typer.Option(metavar="FILE", help="Write JUnit XML.")] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="FILE", help="Fail where FILE says it was better.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write the baseline instead of comparing.")
    ] = False,
    scale: Annotated[
        float, typer.Option("--timeout-scale", metavar="X", help="Stretch the file's timeouts.")
    ] = 10.0,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A dask scheduler (local: start one).")
    ] = None,
) -> int:
    """Run kvm-unit-tests images: a table, JUnit, a comparison with a baseline."""
    from vmm.testing.kut.config import BY_HAND, read_config
    from vmm.testing.kut.report import against_baseline, table, write_baseline, write_junit

    if workers < 1:
        raise UsageError(f"-n {workers} is no number of processes; give 1 or more")
    if write and baseline is None:
        raise UsageError("--write needs --baseline FILE")
    tests = [
        replace(test, why_not="") if (test.name, test.why_not) == (pattern, BY_HAND) else test
        for test in read_config(Path(folder))
        if matches(test.name, pattern)
    ]
    if not tests:
        raise UsageError(f"-k {pattern!r} matches no test of {folder}")
    results: list[KutResult] = []
    for line in table(_kept(_results(tests, workers, scale, scheduler), results)):
        typer.echo(line)
    if junit is not None:
        write_junit(results, Path(junit))
    if write and baseline is not None:
        write_baseline(results, Path(baseline))
        return 0
    if baseline is not None:
        worse = against_baseline(results, Path(baseline))
        for line in worse:
            typer.echo(f"worse: {line}")
        return _FAILED if worse else 0
    bad = ("FAIL", "TIMEOUT", "ERROR")
    return _FAILED if any(result.verdict in bad for result in results) else 0


def matches(name: str, pattern: str) -> bool:
    """Whether a test is meant: a shell pattern, or a part of the name."""
    return fnmatch.fnmatch(name, pattern) or pattern in name


def _one(test: "KutTest", scale: float) -> "KutResult":
    from vmm.testing.kut.run import run_test

    return run_test(test, time.process_time, scale)


def _kept(results: "Iterator[KutResult]", into: "list[KutResult]") -> "Iterator[KutResult]":
    for result in results:
        into.append(result)
        yield result


def _results(
    tests: "list[KutTest]", workers: int, scale: float, scheduler: str | None
) -> "Iterator[KutResult]":
    if scheduler is not None:
        from vmm.testing.spread import spread

        yield from spread(scheduler, _one, [(test, scale) for test in tests], workers)
        return
    if workers == 1:
        yield from (_one(test, scale) for test in tests)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_one, tests, [scale] * len(tests))
