"""A clock that the test moves, and an interrupt wire that remembers."""

from dataclasses import dataclass, field

import pytest


@dataclass
class HandClock:
    """A clock whose time is set by hand; 1 GHz, so that a cycle is a nanosecond."""

    now: int = 0
    frequency: int = 1_000_000_000


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
