"""A little of the fuzzing that `python -m tests.vmm.xenback.fuzz` does in bulk."""

import pytest

from tests.vmm.xenback.fuzz import block_requests, net_slots


@pytest.mark.parametrize("seed", range(3))
def test_nonsense_on_a_block_ring(seed: int) -> None:
    assert block_requests(seed, 300) > 0


@pytest.mark.parametrize("seed", range(3))
def test_nonsense_on_network_rings(seed: int) -> None:
    assert net_slots(seed, 300) > 0
