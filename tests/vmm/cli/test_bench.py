"""`ring1 bench`: marks are read, bad options refused, rows complete."""

import json
import sys

import pytest

from vmm.cli.bench import bench
from vmm.cli.benchmarks import xen
from vmm.cli.benchmarks.machines import seconds_at
from vmm.cli.benchmarks.marks import MarkReader
from vmm.cli.benchmarks.row import Bound, Row, middle
from vmm.errors import UsageError


def test_marks_give_the_time_of_one_repetition() -> None:
    times = iter([10.0, 10.5, 12.5])
    marks = MarkReader(lambda: next(times))
    marks.feed(b"TEST: something\n@cpu")
    assert marks.measuring is None
    marks.feed(b"id 4\n")
    assert marks.measuring == "cpuid"
    marks.feed(b"@\n")
    assert marks.seconds == {"cpuid": pytest.approx(0.5)}  # 10.5 to 12.5, four times


def test_the_median_of_each_name_that_every_run_has() -> None:
    assert middle([{"a": 3.0, "b": 1.0}, {"a": 9.0}, {"a": 4.0, "b": 2.0}]) == {"a": 4.0}


def test_a_bound_is_met_up_to_its_limit() -> None:
    row = Row("cost", "x", "us", 2.5, bounds=(Bound("us", 2.5, 2.5), Bound("us", 2.6, 2.5)))
    assert [bound["met"] for bound in row.as_dict()["bounds"]] == [True, False]
    assert [Bound("MiB/s", rate, 50, at_least=True).met for rate in (49.9, 50, 90)] == [
        False, True, True,
    ]  # fmt: skip


def test_processor_time_at_each_word() -> None:
    """A program that works between two words, and waits before the first and after the second."""
    work = "import time; {} time.sleep(0.3); print('ONE-TWO', flush=True); {} print('-THREE')"
    burn = "[hash(str(n)) for n in range(400_000)];"
    marks = [b"ONE", b"TWO", b"-THREE", b"never"]
    for before, after in (("", burn), (burn, "")):
        one, two, three = seconds_at([sys.executable, "-c", work.format(before, after)], marks)
        assert one == pytest.approx(two, abs=0.01)
        assert three - two > one if after else one > 5 * (three - two)


@pytest.mark.parametrize("words", [["--runs", "0"], ["--only", "nothing"], ["--what"]])
def test_a_bad_option_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError, match="see ring1 bench --help"):
        bench(words)


def test_the_same_twice(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(["--only", "repeat", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["name"] for row in rows] == ["hello.elf", "timer.elf", "exceptions.elf"]
    assert all(row["ring1"] == 0 and row["bounds"][0]["met"] for row in rows)


def test_every_loop_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(["--only", "loop", "--runs", "1", "--percent", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == 3
    assert all(row["ring1"] > 0 and row["peers"]["unicorn"] > 0 for row in rows)


def test_instruction_tests_are_measured_alone_and_under_pytest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert bench(["--only", "tests", "--runs", "1", "--percent", "5", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [bound["limit"] for row in rows for bound in row["bounds"]] == [500, 100]
    assert all(row["unit"] == "us" for row in rows)
    assert rows[0]["ring1"] > 0 < rows[2]["ring1"]


def test_timing_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(["--only", "timing", "--runs", "1", "--percent", "5", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["bounds"][0]["limit"] for row in rows] == pytest.approx(
        [1.25, 1000 / 15, 3.8, 17.8]
    )
    assert rows[0]["ring1"] > 0 < rows[1]["ring1"]


def test_a_boot_under_xen_is_held_against_the_same_under_vtx() -> None:
    seen = {
        "pv before": 2.0, "pv boot": 1.2, "vtx before": 0.5, "vtx boot": 1.0, "pv read": 49.0,
        "ratio": 1.3,  # the median of the rounds' ratios
    }  # fmt: skip
    walk, boot, same = xen.boots(seen)
    assert [bound.met for bound in (*walk.bounds, *boot.bounds)] == [True, False]
    assert boot.bounds[0].value == pytest.approx(1.3)
    assert (same.ring1, same.peers) == (1.0, {})
    assert not xen.carried("read", seen).bounds[0].met
    assert not xen.carried("direct", seen).bounds[0].met  # it never came so far
