"""Who moves, and who changes places, for a node."""

import pytest

from vmm.sched.core import Core
from vmm.sched.homes import exchange
from vmm.sched.task import Place, Task

ALL = frozenset({0, 1})


def machine(*nodes: int | None, affinity: frozenset[int] = ALL) -> tuple[list[Task], list[Core]]:
    """Two physical CPUs, each of its own node; tasks run in order."""
    tasks = [Task(n, node=node, affinity=affinity) for n, node in enumerate(nodes)]
    running = [*tasks, None, None]
    return tasks, [Core(Place(n, n), task=running[n]) for n in range(2)]


@pytest.mark.parametrize(
    ("nodes", "moves"),
    [
        ((0,), ()),
        ((1,), (0,)),
        ((1, 1), ()),
        ((1, 0), (0, 1)),
        ((1, None), (0, 1)),
        ((0, 0), ()),
        ((None,), ()),
    ],
)
def test_who_moves(nodes: tuple[int | None, ...], moves: tuple[int, ...]) -> None:
    tasks, cores = machine(*nodes)
    assert [core.place.number for core in exchange(tasks[0], cores)] == list(moves)


def test_nobody_moves_where_it_may_not_run() -> None:
    tasks, cores = machine(1, affinity=frozenset({0}))
    assert exchange(tasks[0], cores) == ()


def test_who_sleeps_does_not_move() -> None:
    _, cores = machine(0)
    assert exchange(Task(7, node=1), cores) == ()
