"""A little of the fuzzing that `python -m tests.vmm.pv.xen.fuzz` does in bulk."""

import pytest

from tests.vmm.pv.xen.fuzz import random_calls, random_updates
from tests.vmm.pv.xen.fuzz_store import random_messages


@pytest.mark.parametrize("seed", range(4))
def test_random_hypercalls(seed: int) -> None:
    random_calls(seed, 1500)


@pytest.mark.parametrize("seed", range(3))
def test_random_updates_of_page_tables(seed: int) -> None:
    random_updates(seed, 4000, most=1)


@pytest.mark.parametrize("seed", range(2))
def test_nonsense_on_the_ring_of_xenstore(seed: int) -> None:
    assert random_messages(seed, 200) > 0
