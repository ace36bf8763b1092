"""`ring1 compare`: one kernel and initramfs as a Xen PV domain and under VT-x, side by side."""

from typing import Any

import pytest

from tests.linux.guests import Boot
from vmm.observe.compare import compare

WORDS = "console=ttyS0 console=hvc0 cryptomgr.notests rdinit=/bin/busybox -- poweroff -f"


@pytest.mark.slow
def test_exits_hypercalls_and_cycles_of_both(generic: Boot) -> None:
    options: dict[str, Any] = {
        "image": generic.kernel.image, "initrds": [str(generic.initrd)], "cmdline": WORDS,
        "memory": "512M", "timing": "cycle",
    }  # fmt: skip
    vtx, pv = compare(options, ("vtx+ept", "pv")).runs
    for run in (vtx, pv):
        assert (run.status, run.reason) == (0, "poweroff")
        assert sum(run.ledger.values()) == run.cycles
        assert run.ledger["guest"] > run.cycles // 2
    assert {"IO_INSTRUCTION", "EPT_VIOLATION"} <= vtx.exits.keys() - pv.exits.keys()
    assert pv.exits["VMCALL"] > 500
    assert sum(pv.exits.values()) * 10 < sum(vtx.exits.values())
    assert pv.hypercalls_by_name["mmu_update"] > 20_000 < pv.hypercalls
    assert {"mmuext_op", "iret", "stack_switch", "event_channel_op"} <= pv.hypercalls_by_name.keys()
    assert not vtx.hypercalls_by_name
    assert pv.walks["EPT references"] == 0 < vtx.walks["EPT references"]
