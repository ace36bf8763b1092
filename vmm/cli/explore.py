"""``ring1 explore``: try schedules of a guest until one breaks it; print that, and replay it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vmm.errors import UsageError

if TYPE_CHECKING:
    from vmm.explore.run import Attempt, Stage
    from vmm.explore.search import Verdict

FOUND = 66  # a schedule broke the guest
_MARK = "explore_begin"
_STEPS = 20_000


def _text(name: str, metavar: str, words: str) -> Any:
    return typer.Option(name, metavar=metavar, help=words)


def explore(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="The kernel.")],
    start: Annotated[
        str | None,
        _text("--from", "SYMBOL|ADDRESS", f"Where schedules begin [{_MARK}, else power-on]."),
    ] = None,
    bound: Annotated[int, _text("--bound", "N", "Preemptions in a schedule, at most.")] = 2,
    budget: Annotated[int, _text("--budget", "N", "Schedules to try, at most.")] = 100_000,
    at_random: Annotated[
        bool, typer.Option("--random", help="Schedules from --seed, not all in order.")
    ] = False,
    seed: Annotated[int, _text("--seed", "N", "Seed of random schedules.")] = 0,
    every: Annotated[
        bool, typer.Option("--every", help="Preempt anywhere, not only where others may see it.")
    ] = False,
    steps: Annotated[int, _text("--steps", "N", "Instructions of one attempt, at most.")] = _STEPS,
    replay: Annotated[
        str | None, _text("--replay", "STEP>VCPU,...", "Run this schedule alone.")
    ] = None,
    cpus: Annotated[str, _text("--cpus", "N", "Processors.")] = "2",
    memory: Annotated[str, _text("--memory", "SIZE", "RAM.")] = "16M",
    dialect: Annotated[
        list[str] | None, _text("--dialect", "native,...", "Paravirtual dialects [native].")
    ] = None,
    cmdline: Annotated[str | None, _text("--cmdline", "S", "Words for the guest.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Run IMAGE under one schedule after another, from a mark on.

    The guest passes that powers off, or ends with exit code 0 at port 0xf4. Status 66: a schedule
    was found under which it does not, or all its processors sleep for ever.
    """
    from vmm.explore.run import Explored, Stage
    from vmm.explore.schedule import Schedule
    from vmm.symbols.guest import GuestNames

    for name, value in (("--bound", bound), ("--budget", budget), ("--steps", steps)):
        if not 0 < value < 1 << 40:
            raise UsageError(f"{name} {value} is out of range; give a number above 0")
    wanted = None if replay is None else Schedule.of(replay)
    options: dict[str, Any] = {"cpus": cpus, "memory": memory, "cmdline": cmdline, "reboot": False}
    with Explored(Path(image), dialects=dialect or ["native"], timing="fast", **options) as vm:
        if wanted and any(point.vcpu >= len(vm.vcpus) for point in wanted.points):
            raise UsageError(f"--replay {replay!r} names a processor that --cpus {cpus} lacks")
        names = GuestNames(vm.config, vm.plan)
        stage = Stage(vm, _mark(names, start), steps)
        if wanted is not None:
            return _replay(stage, wanted, names, json)
        found = _search(stage, bound, budget, seed if at_random else None, every)
        return _report(stage, found, names, json)


def _mark(names: Any, start: str | None) -> int | None:
    address: int | None = names.image.find(start or _MARK)
    if start is not None and address is None:
        raise UsageError(f"--from {start!r} is no symbol of the image; give one, or an address")
    return address


def _search(stage: "Stage", bound: int, budget: int, seed: int | None, every: bool) -> "Verdict":
    from vmm.explore import search

    def tell(depth: int, tried: int) -> None:
        print(f"ring1: {tried:,} schedules, all with {depth} preemptions", file=sys.stderr)

    if seed is not None:
        return search.at_random(stage, bound=bound, budget=budget, seed=seed)
    return search.systematic(stage, bound=bound, budget=budget, every=every, tell=tell)


def _replay(stage: "Stage", schedule: Any, names: Any, json: bool) -> int:
    attempt = stage.attempt(schedule)
    _print(_described(attempt, names), json)
    return FOUND if attempt.is_broken else 0


def _report(stage: "Stage", found: "Verdict", names: Any, json: bool) -> int:
    from vmm.explore.search import shorten

    report: dict[str, Any] = {"tried": found.tried, "complete": found.complete}
    if found.found is not None:
        shortest = shorten(stage, found.found)
        again = stage.attempt(shortest.schedule)
        report |= _described(shortest, names) | {"replays": again == shortest}
    _print(report, json)
    return FOUND if found.found is not None else 0


def _described(attempt: "Attempt", names: Any) -> dict[str, Any]:
    where = [f"vCPU {n}: {_place(names, rip)}" for n, rip in enumerate(attempt.rips)]
    switches = [
        f"step {point.step}: vCPU {before} at {_place(names, rip)} loses its turn to {point.vcpu}"
        for point, before, rip in attempt.switched
    ]
    return {
        "end": str(attempt.end), "message": attempt.message, "schedule": str(attempt.schedule),
        "preemptions": switches, "steps": attempt.steps, "where": where,
    }  # fmt: skip


def _place(names: Any, rip: int) -> str:
    line = names.image.line_at(rip)
    return f"{names.image.text(rip)}" + (f" at {line}" if line else "")


def _print(report: dict[str, Any], json: bool) -> None:
    if json:
        from json import dumps

        print(dumps(report, indent=1))
        return
    if "tried" in report:
        limit = "all within the bound" if report["complete"] else "not all there are"
        print(f"{report['tried']:,} schedules tried" + ("" if "end" in report else f", {limit}"))
    if "end" not in report:
        print("none breaks the guest")
        return
    print(f"the guest {report['end']} after {report['steps']:,} steps: {report['message']}")
    for line in (*report["preemptions"], *report["where"]):
        print(f"  {line}")
    if report.get("replays", True):
        print(f"  again: --replay '{report['schedule']}'")
