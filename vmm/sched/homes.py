"""NUMA: whoever turns out to have its memory elsewhere moves there, or changes places."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vmm.sched.task import Task

if TYPE_CHECKING:
    from vmm.sched.core import Core


def exchange(task: Task, cores: Sequence["Core"]) -> "tuple[Core, ...]":
    """Return the physical CPUs that are given up so that a task gets one of its own node.

    None if it does not run or is there already; its own if another is free; two if who is there has
    no reason to stay, and can be here: they change places, as Linux's migrate_swap() has them do.
    """
    here = next((core for core in cores if core.task is task), None)
    if here is None or here.place.node == task.node:
        return ()
    for there in cores:
        if there.place.node != task.node or there.place.number not in task.affinity:
            continue
        if there.task is None:
            return (here,)
        other = there.task
        if other.node != there.place.node and here.place.number in other.affinity:
            return here, there
    return ()
