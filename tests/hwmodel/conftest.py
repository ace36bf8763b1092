"""Bare machines, freed with the test."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.bare import Bare


@pytest.fixture(name="bare")
def _bare() -> Iterator[Callable[..., Bare]]:
    made: list[Bare] = []

    def make(*words: Any, **options: Any) -> Bare:
        made.append(Bare(*words, **options))
        return made[-1]

    yield make
    for machine in made:
        machine.close()
