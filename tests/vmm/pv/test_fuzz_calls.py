"""A sample of the fuzzing of hypercalls; `tests/vmm/pv/fuzz_calls.py` runs a million."""

import pytest

from tests.vmm.pv.fuzz_calls import campaign
from vmm.pv.native.abi import Call

CALLS = 6000
REACHED = (
    Call.MULTICALL, Call.MMU_UPDATE, Call.SET_TIMER, Call.SET_PAGE, Call.ENTROPY, Call.RING_SETUP,
    Call.BALLOON_GIVE, Call.WAKE, Call.YIELD,
)  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2])
def test_wild_calls_get_errors_and_nothing_else(seed: int) -> None:
    seen = campaign(CALLS, seed)
    assert sum(seen.values()) == CALLS
    errors = {name.rsplit(" ", 1)[-1] for name in seen}
    assert {f"{call.name} done" for call in REACHED} <= seen.keys()
    assert {"BAD_ADDRESS", "BAD_ARGUMENT", "MISALIGNED", "BAD_STATE"} <= errors
