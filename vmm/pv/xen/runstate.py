"""Run states of vCPUs (public/vcpu.h): running, runnable, blocked, offline, and for how long.

The area that a guest registers is at a linear address of its own, and written where that is mapped
when it is due.
"""

from collections.abc import Callable
from enum import IntEnum
from struct import Struct
from typing import Any, Final

_IMAGE: Final = Struct("<i4xQQQQQ")


class RunState(IntEnum):
    """RUNSTATE_*."""

    RUNNING = 0
    RUNNABLE = 1
    BLOCKED = 2
    OFFLINE = 3


class RunStates:
    """Of every vCPU: what it is, since when, and the time in each state so far; nanoseconds."""

    def __init__(
        self, vcpus: int, now: Callable[[], int], write: Callable[[int, int, bytes], None]
    ) -> None:
        """`write` stores bytes at a linear address of a vCPU, if it can."""
        self._now: Final = now
        self._write: Final = write
        self._state = [RunState.RUNNING] + [RunState.OFFLINE] * (vcpus - 1)
        self._since = [0] * vcpus
        self._spent = [[0] * 4 for _ in range(vcpus)]
        self._area = [0] * vcpus

    def change(self, vcpu: int, state: RunState) -> None:
        """A vCPU is something else from now on."""
        if self._state[vcpu] is state:
            return
        now = self._now()
        self._spent[vcpu][self._state[vcpu]] += now - self._since[vcpu]
        self._state[vcpu], self._since[vcpu] = state, now

    def register(self, vcpu: int, linear: int) -> None:
        """The guest wants to see it there."""
        self._area[vcpu] = linear
        self.show(vcpu)

    def show(self, vcpu: int) -> None:
        """Write the area, if there is one; the vCPU has the processor."""
        if self._area[vcpu]:
            self._write(vcpu, self._area[vcpu], self.image(vcpu))

    def image(self, vcpu: int) -> bytes:
        """Return struct vcpu_runstate_info as of now."""
        spent = list(self._spent[vcpu])
        spent[self._state[vcpu]] += self._now() - self._since[vcpu]
        return _IMAGE.pack(self._state[vcpu], self._since[vcpu], *spent)

    def save(self) -> list[Any]:
        """Everything."""
        states = [int(state) for state in self._state]
        return [states, list(self._since), [list(s) for s in self._spent], list(self._area)]

    def restore(self, state: Any) -> None:
        """Take over what save() returned."""
        states, since, spent, area = state
        self._state = [RunState(number) for number in states]
        self._since, self._area = list(since), list(area)
        self._spent = [list(times) for times in spent]
