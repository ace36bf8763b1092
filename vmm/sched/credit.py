"""Xen's credit scheduler: shares by weight and cap, a slice of 30 ms, wake-ups go first.

Xen's xen/common/sched/credit.c and its wiki page "Credit Scheduler": each period of 30 ms the time
of all processors is handed out as credit, by weight among the guests that wanted to run; what runs
pays. Who has credit is UNDER and goes before who is OVER; who wakes with credit is BOOSTed until it
has run for a while; who is over its cap waits for the next period. Each physical CPU has a queue,
and takes from others' (its own NUMA node's first) when it has nothing as good. Xen counts what runs
by 10 ms ticks; here every cycle counts, so that nobody hides between ticks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vmm.sched.task import Place, Priority, Task


@dataclass(frozen=True, slots=True)
class Times:
    """The lengths of a policy, in cycles."""

    slice: int
    ratelimit: int = 0
    """Nobody is preempted before it ran for so long."""
    period: int = 0
    """Of accounting."""
    boost: int = 0
    """How long a boost lasts."""


class Credit:
    """The queues, and the credit of each task."""

    def __init__(self, places: Sequence[Place], tasks: Sequence[Task], times: Times) -> None:
        """Everybody begins with nothing, UNDER."""
        self.places: Final = list(places)
        self.tasks: Final = list(tasks)
        self.times: Final = times
        self._queues: Final[list[list[Task]]] = [[] for _ in places]
        self._busy: Final = [False] * len(places)
        self._boosted: dict[int, int] = {}
        self._next = times.period

    # ---- queues ----

    def ready(self, task: Task, now: int) -> None:
        """Wake: with credit it is boosted; an idle physical CPU is better than the last one."""
        task.active = True
        task.pcpu = self._best_place(task)
        if task.priority is Priority.UNDER:
            task.priority = Priority.BOOST
            self._boosted[task.number] = self.times.boost
        self._insert(task)

    def put_back(self, task: Task, now: int) -> None:
        """Behind the others of its class; of its own node, if it was not there."""
        self._busy[task.pcpu] = False
        task.pcpu = self._home(task)
        self._insert(task)

    def blocked(self, task: Task, now: int) -> None:
        """It is in no queue, and its processor is free."""
        self._busy[task.pcpu] = False

    def _insert(self, task: Task) -> None:
        queue = self._queues[task.pcpu]
        behind = (n for n, other in enumerate(queue) if other.priority < task.priority)
        queue.insert(next(behind, len(queue)), task)
        task.waits = True

    def _home(self, task: Task) -> int:
        """Where it is, or the shortest queue of its node."""
        near = [p.number for p in self.places if p.number in task.affinity and p.node == task.node]
        if not near or task.pcpu in near:
            return task.pcpu
        return min(near, key=lambda n: (len(self._queues[n]) + self._busy[n], n))

    def _best_place(self, task: Task) -> int:
        """The last one if it is free; another free one, of the task's node first; the last one."""

        def distance(place: Place) -> tuple[bool, bool, bool, int]:
            number = place.number
            taken = self._busy[number] or bool(self._queues[number])
            remote = task.node is not None and place.node != task.node
            return taken, remote, number != task.pcpu, number

        allowed = [place for place in self.places if place.number in task.affinity]
        return min(allowed, key=distance).number

    def pick(self, place: Place, now: int) -> Task | None:
        """Take the head of its own queue, or of another's where that is of a better class."""
        own = self._head(place.number, place)
        best, at = own, place.number
        if own is None or own.priority <= Priority.OVER:
            others = sorted(self.places, key=lambda p: (p.node != place.node, p.number))
            for other in others:
                task = self._head(other.number, place)
                if task is not None and (best is None or task.priority > best.priority):
                    best, at = task, other.number
        if best is None:
            return None
        self._queues[at].remove(best)
        best.waits, best.pcpu = False, place.number
        self._busy[place.number] = True
        return best

    def _head(self, queue: int, place: Place) -> Task | None:
        able = (
            task for task in self._queues[queue]
            if place.number in task.affinity and task.priority is not Priority.PARKED
        )  # fmt: skip
        return next(able, None)

    def prefer(self, task: Task, place: Place) -> bool:
        """Put it at the head of the queue there, of whatever class it is."""
        parked = task.priority is Priority.PARKED
        if not task.waits or parked or place.number not in task.affinity:
            return False
        self._queues[task.pcpu].remove(task)
        task.pcpu = place.number
        self._queues[place.number].insert(0, task)
        return True

    # ---- time ----

    def slice_end(self, task: Task, now: int) -> int:
        """One slice, what is left of a boost, or until its cap is reached."""
        longest = min(self.times.slice, self._boosted.get(task.number) or self.times.slice)
        if task.cap:
            longest = min(longest, task.credit + self._capped(task) + 1)
        return now + max(1, longest)

    def preempts(self, place: Place, current: Task, since: int, now: int) -> bool:
        """It is over its cap; or a better class waits, and it had what everybody is granted."""
        if current.priority is Priority.PARKED:
            return True
        if now - since < self.times.ratelimit:
            return False
        head = self._head(place.number, place)
        return head is not None and head.priority > current.priority

    def ran(self, task: Task, cycles: int) -> None:
        """Pay."""
        task.credit -= cycles
        task.active = True
        left = self._boosted.get(task.number, 0) - cycles
        if left > 0:
            self._boosted[task.number] = left
            self._park(task)
            return
        if self._boosted.pop(task.number, None) is not None or task.priority is Priority.BOOST:
            task.priority = Priority.UNDER
        if task.priority is Priority.UNDER and task.credit < 0:
            task.priority = Priority.OVER
        self._park(task)

    def _park(self, task: Task) -> None:
        if task.cap and task.credit < -self._capped(task):
            task.priority = Priority.PARKED
            self._boosted.pop(task.number, None)

    def _capped(self, task: Task) -> int:
        """How much of a period its cap leaves to it."""
        mine = sum(other.active for other in self.tasks if other.guest == task.guest)
        return self.times.period * task.cap // 100 // max(1, mine)

    def next_tick(self) -> int | None:
        """The next accounting."""
        return self._next

    def tick(self, now: int) -> None:
        """Hand out the time of all processors, by weight, to guests that wanted some."""
        while self._next <= now:
            self._next += self.times.period
        active = [task for task in self.tasks if task.active or task.waits]
        weights = {task.guest: task.weight for task in active}
        counts = {guest: sum(t.guest == guest for t in active) for guest in weights}
        total, whole = len(self.places) * self.times.period, sum(weights.values())
        for task in active:
            share = total * weights[task.guest] // whole // counts[task.guest]
            self._grant(task, min(share, self._capped(task)) if task.cap else share)
        for queue in self._queues:
            queue.sort(key=lambda task: -task.priority)

    def _grant(self, task: Task, share: int) -> None:
        """More than a period of credit is not saved up: it could run, and did not want to."""
        task.credit = min(task.credit + share, self.times.period)
        if task.credit >= 0 and task.priority is not Priority.BOOST:
            task.priority = Priority.UNDER
        elif task.priority is Priority.PARKED and task.credit >= -self._capped(task):
            task.priority = Priority.OVER
        task.active = False
