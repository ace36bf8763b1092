"""Page walks in C against the readable twin, and both against the manual."""

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.twin.walking import Walker, case_of


@pytest.fixture(scope="module")
def walker() -> Iterator[Walker]:
    made = Walker()
    yield made
    made.close()


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1 << 62))
def test_c_and_twin_walk_alike(walker: Walker, seed: int) -> None:
    assert walker.differences(case_of(Random(seed))) == []
