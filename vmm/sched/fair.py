"""Two policies without credit: round robin, and gangs that have all physical CPUs at once."""

from collections.abc import Sequence
from typing import Final

from vmm.sched.credit import Times
from vmm.sched.task import Place, Task


class Turns:
    """One queue for all physical CPUs: first in, first out; of its own NUMA node first."""

    def __init__(self, places: Sequence[Place], tasks: Sequence[Task], times: Times) -> None:
        """Nobody waits."""
        self.places: Final = list(places)
        self.times: Final = times
        self.queue: Final[list[Task]] = []

    def ready(self, task: Task, now: int) -> None:
        """Join the queue."""
        task.waits = True
        self.queue.append(task)

    def put_back(self, task: Task, now: int) -> None:
        """Join the queue again."""
        self.ready(task, now)

    def blocked(self, task: Task, now: int) -> None:
        """Who sleeps is in no queue."""

    def ran(self, task: Task, cycles: int) -> None:
        """Turns are all alike."""

    def pick(self, place: Place, now: int) -> Task | None:
        """Take the first that may run there; one whose memory is far only if there is no other."""
        able = [task for task in self.queue if place.number in task.affinity]
        near = (task for task in able if task.node is None or task.node == place.node)
        task = next(near, able[0] if able else None)
        if task is not None:
            self.queue.remove(task)
            task.waits, task.pcpu = False, place.number
        return task

    def prefer(self, task: Task, place: Place) -> bool:
        """Put it at the head of the queue."""
        if not task.waits or place.number not in task.affinity:
            return False
        self.queue.remove(task)
        self.queue.insert(0, task)
        return True

    def slice_end(self, task: Task, now: int) -> int:
        """A slice for everybody."""
        return now + self.times.slice

    def preempts(self, place: Place, current: Task, since: int, now: int) -> bool:
        """Nobody waits for less than a turn."""
        return False

    def next_tick(self) -> int | None:
        """Nothing is accounted for."""
        return None

    def tick(self, now: int) -> None:
        """Nothing is accounted for."""


class Gangs(Turns):
    """Ousterhout's matrix: time is cut into slots, and each belongs to one gang.

    In its slot every member that wants to run has a physical CPU, so that nobody spins for one that
    does not run. A gang with more members than there are physical CPUs has several slots. Who is in
    no gang, or not in the one of the slot, fills what is free until a member wants it.
    """

    def __init__(self, places: Sequence[Place], tasks: Sequence[Task], times: Times) -> None:
        """The first slot begins at once."""
        super().__init__(places, tasks, times)
        self.rows: Final = self._rows([task for task in tasks if task.gang])
        self._row = 0
        self._slot_ends = times.slice

    def _rows(self, tasks: list[Task]) -> list[dict[int, Task]]:
        rows = []
        for guest in sorted({task.guest for task in tasks}):
            waiting = [task for task in tasks if task.guest == guest]
            while waiting:
                row = self._place(waiting)
                rows.append(row)
                waiting = [task for task in waiting if task not in row.values()]
        return rows

    def _place(self, tasks: list[Task]) -> dict[int, Task]:
        """Give each a physical CPU that it may run on, those with the least choice first."""
        row: dict[int, Task] = {}
        for task in sorted(tasks, key=lambda t: (len(t.affinity), t.number)):
            free = [
                place for place in self.places
                if place.number in task.affinity and place.number not in row
            ]  # fmt: skip
            if free:
                far = [task.node is not None and place.node != task.node for place in free]
                row[free[far.index(min(far))].number] = task
        return row

    def _member(self, place: Place) -> Task | None:
        return self.rows[self._row].get(place.number) if self.rows else None

    def pick(self, place: Place, now: int) -> Task | None:
        """The member of this slot; else who has none, or whose gang is not on."""
        member = self._member(place)
        if member is not None and member.waits:
            self.queue.remove(member)
            member.waits, member.pcpu = False, place.number
            return member
        of_slot = list(self.rows[self._row].values()) if self.rows else []
        for task in self.queue:
            if place.number in task.affinity and task not in of_slot:
                self.queue.remove(task)
                task.waits, task.pcpu = False, place.number
                return task
        return None

    def prefer(self, task: Task, place: Place) -> bool:
        """Members of this slot have physical CPUs already; others go first among the fillers."""
        if self.rows and task in self.rows[self._row].values():
            return False
        return self._member(place) is None and super().prefer(task, place)

    def slice_end(self, task: Task, now: int) -> int:
        """All leave at the same cycle."""
        return self._slot_ends

    def preempts(self, place: Place, current: Task, since: int, now: int) -> bool:
        """A filler makes room for a member that woke up."""
        member = self._member(place)
        return member is not None and member is not current and member.waits

    def next_tick(self) -> int | None:
        """The end of the slot."""
        return self._slot_ends

    def tick(self, now: int) -> None:
        """The next gang that has somebody who wants to run."""
        self._slot_ends = now + self.times.slice
        for step in range(1, len(self.rows) + 1):
            row = (self._row + step) % len(self.rows)
            if any(task.waits for task in self.rows[row].values()):
                break
        else:
            return
        self._row = row
