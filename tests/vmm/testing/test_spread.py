"""Work over a dask cluster of real processes; one is killed in mid-run and nothing is lost."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from vmm.errors import UsageError
from vmm.testing.spread import spread

pytest.importorskip("distributed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def work(number: int, folder: str) -> int:
    """A task; the worker that gets number 3 first is killed in the middle of it."""
    mark = Path(folder) / "killed"
    if number == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return number * number


def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    results = list(spread("local", work, [(n, str(tmp_path)) for n in range(12)], workers=3))
    assert results == [n * n for n in range(12)]
    assert (tmp_path / "killed").exists()


def test_fuzz_over_a_cluster_is_fuzz_alone(capsys: pytest.CaptureFixture[str]) -> None:
    from vmm.cli.fuzz import span
    from vmm.testing.fuzz.campaign import Findings

    tasks: list[tuple[Any, ...]] = [(9, n * 300, 300, (), None, "ring1") for n in range(3)]
    total = Findings()
    for found in spread("local", span, tasks, workers=2):
        total.add(found)
    alone = span(9, 0, 900, (), None, "ring1")
    assert (total.programs, total.instructions) == (alone.programs, alone.instructions)
    assert total.faults == alone.faults


def test_nobody_answers() -> None:
    with pytest.raises(UsageError, match="does not answer"):
        list(spread("tcp://127.0.0.1:1", work, [(1, "")]))
