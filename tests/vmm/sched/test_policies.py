"""Who gets how much: policies alone, with tasks that are nothing but numbers."""

from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from vmm.sched.credit import Credit, Times
from vmm.sched.fair import Gangs, Turns
from vmm.sched.task import Place, Policy, Priority, Task

MS = 1_000_000
CREDIT = Times(slice=30 * MS, ratelimit=MS, period=30 * MS, boost=10 * MS)
SHORT = Times(slice=MS)


class Toy:
    """The scheduler's loop without guests: all want to run, but for `sleeps`."""

    def __init__(self, policy: Policy, places: Iterable[Place], tasks: Iterable[Task]) -> None:
        self.policy, self.places, self.tasks = policy, list(places), list(tasks)
        self.on: dict[int, tuple[Task, int, int]] = {}
        self.had: Counter[int] = Counter()
        self.where: Counter[tuple[int, int]] = Counter()
        self.together: Counter[tuple[int, ...]] = Counter()
        self.now = 0
        for task in self.tasks:
            policy.ready(task, 0)

    def run(self, until: int, step: int = MS, each: Callable[[int], None] = lambda _: None) -> None:
        while self.now < until:
            tick = self.policy.next_tick()
            for place in self.places:
                if place.number in self.on:
                    task, since, ends = self.on[place.number]
                    if self.now >= ends or self.policy.preempts(place, task, since, self.now):
                        del self.on[place.number]
                        self.policy.put_back(task, self.now)
            if tick is not None and tick <= self.now:
                self.policy.tick(self.now)
            each(self.now)
            for place in self.places:
                picked = None if place.number in self.on else self.policy.pick(place, self.now)
                if picked is not None:
                    ends = self.policy.slice_end(picked, self.now)
                    self.on[place.number] = picked, self.now, ends
            self.now += step
            for number, (task, _, _) in self.on.items():
                self.policy.ran(task, step)
                self.had[task.number] += step
                self.where[task.number, number] += step
            running = tuple(sorted(task.number for task, _, _ in self.on.values()))
            self.together[running] += step


def places(count: int, nodes: int = 1) -> list[Place]:
    return [Place(n, n * nodes // count) for n in range(count)]


def tasks(count: int, pcpus: int, **more: int) -> list[Task]:
    return [Task(n, guest=n, affinity=frozenset(range(pcpus)), **more) for n in range(count)]  # type: ignore[arg-type]


@pytest.mark.parametrize("weights", [(256, 256), (256, 512), (100, 300, 600)])
def test_credit_shares_by_weight(weights: tuple[int, ...]) -> None:
    all_tasks = tasks(len(weights), 1)
    for task, weight in zip(all_tasks, weights, strict=True):
        task.weight = weight
    toy = Toy(Credit(places(1), all_tasks, CREDIT), places(1), all_tasks)
    toy.run(9000 * MS)
    for task in all_tasks:
        share = toy.had[task.number] / sum(toy.had.values())
        assert share == pytest.approx(task.weight / sum(weights), rel=0.05)


def test_a_weight_is_a_guests_not_each_virtual_cpus() -> None:
    all_tasks = [Task(n, guest=min(n, 1)) for n in range(4)]
    toy = Toy(Credit(places(1), all_tasks, CREDIT), places(1), all_tasks)
    toy.run(9000 * MS)
    assert toy.had[0] == pytest.approx(sum(toy.had[n] for n in (1, 2, 3)), rel=0.06)


@pytest.mark.parametrize("others", [0, 1])
def test_a_cap_holds_even_where_nobody_else_wants_to_run(others: int) -> None:
    all_tasks = tasks(1 + others, 1)
    all_tasks[0].cap = 25
    toy = Toy(Credit(places(1), all_tasks, CREDIT), places(1), all_tasks)
    toy.run(6000 * MS)
    assert toy.had[0] / 6000 / MS == pytest.approx(0.25, abs=0.03)


def test_who_wakes_with_credit_goes_first() -> None:
    worker, sleeper = tasks(2, 1)
    policy = Credit(places(1), [worker, sleeper], CREDIT)
    policy.ready(worker, 0)
    assert policy.pick(places(1)[0], 0) is worker
    policy.ran(worker, 11 * MS)
    policy.ready(sleeper, 11 * MS)
    assert sleeper.priority is Priority.BOOST
    assert not policy.preempts(places(1)[0], worker, 11 * MS - MS // 2, 11 * MS)
    assert policy.preempts(places(1)[0], worker, 0, 11 * MS)


def test_a_boost_is_short() -> None:
    worker, sleeper = tasks(2, 1)
    policy = Credit(places(1), [worker, sleeper], CREDIT)
    for task in (worker, sleeper):
        policy.ready(task, 0)
    first = policy.pick(places(1)[0], 0)
    assert first is not None
    assert policy.slice_end(first, 0) == 10 * MS
    policy.ran(first, 10 * MS)
    assert first.priority < Priority.BOOST


@pytest.mark.parametrize("make", [Credit, Turns])
def test_affinity_is_never_broken(make: Callable[..., Policy]) -> None:
    all_tasks = tasks(6, 4)
    for task in all_tasks:
        task.affinity = frozenset({task.number % 4, 3})
        task.pcpu = task.number % 4
    toy = Toy(make(places(4), all_tasks, CREDIT), places(4), all_tasks)
    toy.run(2000 * MS)
    assert all(place in all_tasks[number].affinity for number, place in toy.where)
    assert len(toy.had) == 6


@pytest.mark.parametrize("make", [Credit, Turns])
def test_memory_that_is_near_is_preferred(make: Callable[..., Policy]) -> None:
    all_tasks = tasks(4, 4)
    for task in all_tasks:
        task.node = task.number % 2
    toy = Toy(make(places(4, 2), all_tasks, CREDIT), places(4, 2), all_tasks)
    toy.run(2000 * MS)
    near = sum(n for (task, at), n in toy.where.items() if at // 2 == task % 2)
    assert near / sum(toy.where.values()) > 0.95
    assert sum(toy.where.values()) == 4 * 2000 * MS, "no processor is idle for that"


def test_turns_are_equal() -> None:
    all_tasks = tasks(5, 2)
    toy = Toy(Turns(places(2), all_tasks, SHORT), places(2), all_tasks)
    toy.run(1000 * MS)
    assert max(toy.had.values()) - min(toy.had.values()) <= MS


def test_gangs_run_together_or_not_at_all() -> None:
    all_tasks = [
        Task(n, guest=n // 4, affinity=frozenset(range(4)), gang=True, pcpu=0) for n in range(8)
    ]
    toy = Toy(Gangs(places(4), all_tasks, SHORT), places(4), all_tasks)
    toy.run(100 * MS)
    assert set(toy.together) == {(0, 1, 2, 3), (4, 5, 6, 7)}
    assert max(toy.had.values()) - min(toy.had.values()) <= MS


def test_a_gang_larger_than_the_machine_has_several_slots() -> None:
    all_tasks = [Task(n, affinity=frozenset(range(2)), gang=True) for n in range(3)]
    toy = Toy(Gangs(places(2), all_tasks, SHORT), places(2), all_tasks)
    toy.run(100 * MS)
    assert len(toy.had) == 3
    assert (0, 1) in toy.together


def test_who_is_yielded_to_goes_next() -> None:
    all_tasks = tasks(4, 1)
    for make in (Credit, Turns):
        policy = make(places(1), all_tasks, CREDIT)
        for task in all_tasks:
            policy.ready(task, 0)
        assert policy.pick(places(1)[0], 0) is all_tasks[0]
        assert policy.prefer(all_tasks[3], places(1)[0])
        assert not policy.prefer(all_tasks[0], places(1)[0]), "it runs"
        assert policy.pick(places(1)[0], 0) is all_tasks[3]
