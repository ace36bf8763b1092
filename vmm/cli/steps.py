"""``ring1 fuzz --suite``: recorded single steps of old processors on ring1."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vmm.errors import UsageError

if TYPE_CHECKING:
    from vmm.testing.steps.machine import StepMachine
    from vmm.testing.steps.step import Step

_DIFFERS = 1
_SHOWN = 5  # differences of one file


def run_suite(path: Path, count: int) -> int:
    """Run up to `count` steps of each file at `path`; status 1 where one is not explained."""
    from vmm.testing.steps.machine import StepMachine
    from vmm.testing.steps.suite import files_of

    if count < 1:
        raise UsageError("--count is at least 1")
    known: Counter[str] = Counter()
    done = differ = 0
    with StepMachine() as machine:
        for file in files_of(path):
            ran, found = _file(machine, file, count, known)
            done, differ = done + ran, differ + found
            typer.echo(f"{file.name}: {ran} steps, {found} differ", err=True)
    _report(done, differ, known)
    return _DIFFERS if differ else 0


def _file(machine: "StepMachine", file: Path, count: int, known: Counter[str]) -> tuple[int, int]:
    from vmm.testing.steps.differences import judge
    from vmm.testing.steps.suite import read_suite

    suite, found = read_suite(file), 0
    steps = suite.steps[:count]
    for step in steps:
        name, lines = judge(suite, step, machine.run(step))
        if name is not None:
            known[name] += 1
        if lines:
            found += 1
            if found <= _SHOWN:
                _show(step, lines)
    return len(steps), found


def _show(step: "Step", lines: list[str]) -> None:
    typer.echo(f"  {step.name} ({step.code.hex(' ')}) {step.digest} differs:")
    for line in lines:
        typer.echo(f"    ring1, recorded: {line}")


def _report(done: int, differ: int, known: Counter[str]) -> None:
    from vmm.testing.steps.differences import table

    typer.echo(f"{done} recorded steps, {differ} differ")
    whys = {row.name: f"{row.by}: {row.why}" for row in table()}
    for name, number in known.most_common():
        typer.echo(f"  known: {number} {name} ({whys[name]})")
