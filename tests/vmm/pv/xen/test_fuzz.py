"""A little of the fuzzing that `python -m tests.vmm.pv.xen.fuzz` does in bulk."""

import pytest

from tests.vmm.pv.xen.fuzz import random_calls, random_updates


@pytest.mark.parametrize("seed", range(4))
def test_random_hypercalls(seed: int) -> None:
    random_calls(seed, 1500)


@pytest.mark.parametrize("seed", range(3))
def test_random_updates_of_page_tables(seed: int) -> None:
    random_updates(seed, 4000, most=1)
