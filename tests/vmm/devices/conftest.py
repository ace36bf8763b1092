"""A clock that the test moves, and an interrupt wire that remembers."""

from dataclasses import dataclass, field

import pytest

from hwmodel.timing.clock import Clock


class HandClock(Clock):
    """A clock whose time is set by hand."""

    def __init__(self, now: int = 0, frequency: int = 1_000_000_000) -> None:
        super().__init__(frequency, now)


@dataclass
class Wire:
    """The levels an interrupt line was driven to, without repetitions."""

    level: bool = False
    edges: int = 0
    history: list[bool] = field(default_factory=list)

    def __call__(self, level: bool) -> None:
        if level != self.level:
            self.edges += level
            self.history.append(level)
        self.level = level


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def wire() -> Wire:
    return Wire()
