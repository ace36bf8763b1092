"""Wrong programs are found out, right ones are not; what was found comes again."""

import json
from pathlib import Path

import pytest

from vmm.cli.main import main
from vmm.errors import UsageError
from vmm.explore.run import End, Explored, Stage
from vmm.explore.schedule import Point, Schedule
from vmm.explore.search import at_random, shorten, systematic
from vmm.symbols.elf import elf_symbols, open_elf

BROKEN = {"sleep": {End.ASLEEP}, "draw": {End.ENDLESS, End.FAILED}, "forget": {End.ASLEEP}}
RIGHT = ["wait", "ticket", "pv", "mutex", "tas"]


@pytest.fixture
def races(images: Path) -> Path:
    return images / "native_races.elf"


def stage(vm: Explored) -> Stage:
    image = vm.config.image
    assert isinstance(image, Path)
    elf = open_elf(image.read_bytes())
    begin = next(s.address for s in elf_symbols(elf) if s.name == "explore_begin")
    return Stage(vm, begin, 5000)


def guest(races: Path, case: str) -> Explored:
    return Explored(races, cpus=2, memory="16M", dialects=["native"], cmdline=f"case={case}")


@pytest.mark.parametrize("case", BROKEN)
def test_broken_ones_are_found_in_order_within_a_thousand_schedules(races: Path, case: str) -> None:
    with guest(races, case) as vm:
        here = stage(vm)
        found = systematic(here, bound=2, budget=1000, every=False, tell=lambda *_: None)
        assert found.found is not None
        assert found.found.end in BROKEN[case]
        assert found.found.schedule.points, "without a preemption it passes"
        assert here.attempt(found.found.schedule) == found.found


@pytest.mark.parametrize("case", RIGHT)
def test_right_ones_pass_to_the_bound(races: Path, case: str) -> None:
    with guest(races, case) as vm:
        found = systematic(stage(vm), bound=1, budget=10_000, every=True, tell=lambda *_: None)
    assert found.complete, found.found


@pytest.mark.parametrize("seed", [1, 2, 77])
@pytest.mark.parametrize("case", BROKEN)
def test_any_seed_finds_them(races: Path, case: str, seed: int) -> None:
    """Five thousand schedules take less than ten seconds; mostly it is some dozens."""
    with guest(races, case) as vm:
        here = stage(vm)
        found = at_random(here, bound=4, budget=5000, seed=seed)
        assert found.found is not None
        assert here.attempt(found.found.schedule) == found.found
        short = shorten(here, found.found)
        assert len(short.schedule.points) <= len(found.found.schedule.points)
        assert short.end is found.found.end


@pytest.mark.parametrize("case", RIGHT)
def test_a_thousand_random_schedules_of_right_ones(races: Path, case: str) -> None:
    with guest(races, case) as vm:
        assert at_random(stage(vm), bound=4, budget=1000, seed=5).found is None


def test_the_same_seed_is_the_same_search(races: Path) -> None:
    found = []
    for _ in range(2):
        with guest(races, "sleep") as vm:
            found.append(at_random(stage(vm), bound=4, budget=5000, seed=9))
    assert found[0] == found[1]


def test_an_attempt_leaves_nothing_behind(races: Path) -> None:
    with guest(races, "draw") as vm:
        here = stage(vm)
        first = here.attempt(Schedule())
        here.attempt(Schedule((Point(8, 1),)))
        assert here.attempt(Schedule()) == first
        assert first.end is End.PASSED


def test_schedules_are_read_and_written() -> None:
    assert str(Schedule.of("3>1, 18>0")) == "3>1,18>0"
    assert Schedule.of("") == Schedule()


@pytest.mark.parametrize("text", ["3", "3>x", "5>1,3>0", "3>1,3>0", "-3>1"])
def test_bad_schedules_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Schedule.of(text)


def test_the_command_prints_a_schedule_and_replays_it(
    races: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["explore", str(races), "--cmdline", "case=sleep", "--json"]
    assert main(base) == 66
    found = json.loads(capsys.readouterr().out)
    assert (found["end"], found["replays"]) == ("asleep", True)
    assert "run_sleep" in found["preemptions"][-1]
    assert main([*base, "--replay", found["schedule"]]) == 66
    again = json.loads(capsys.readouterr().out)
    assert again["where"] == found["where"]
    assert main([*base, "--replay", ""]) == 0


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--from", "nowhere"], "nowhere"),
        (["--bound", "0"], "--bound 0"),
        (["--replay", "1>7"], "1>7"),
        (["--replay", "x"], "'x'"),
    ],
)
def test_bad_input_is_one_line(
    races: Path, more: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explore", str(races), *more]) == 64
    said = capsys.readouterr().err
    assert word in said
    assert said.count("\n") == 1
