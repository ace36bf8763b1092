"""Several VMs on one machine: shares, caps, steal, and the same again."""

from typing import Any

import pytest

from tests.images import elf64
from vmm import VM
from vmm.errors import UsageError
from vmm.machine import Machine

COUNT = "again: inc rax; jmp again"
ENDS = "mov ecx, 3000000; again: dec ecx; jnz again; xor eax, eax; out 0xf4, al"
SLEEPS = "cli; hlt"
MS = 2_500_000


def counting(
    *scheds: str, pcpus: int = 1, ms: int = 150, settled: int = 0, **more: Any
) -> list[int]:
    """What each has done from `settled` ms on."""
    vms = [VM(elf64(COUNT), memory="4M", pcpus=pcpus, sched=sched, **more) for sched in scheds]
    try:
        machine = Machine(*vms)
        machine.run(until=settled * MS)
        before = [vm.pcpus.instructions for vm in vms]
        assert machine.run(until=ms * MS) == [None] * len(vms)
        return [vm.pcpus.instructions - done for vm, done in zip(vms, before, strict=True)]
    finally:
        for vm in vms:
            vm.close()


@pytest.mark.parametrize("weights", [(256, 256), (256, 512), (100, 200, 300)])
def test_guests_get_their_weights(weights: tuple[int, ...]) -> None:
    """Nobody has credit at first; who is behind has caught up after some periods of accounting."""
    scheds = [f"credit,slice=1ms,weight={weight}" for weight in weights]
    did = counting(*scheds, settled=210, ms=300)
    for weight, got in zip(weights, did, strict=True):
        assert got / sum(did) == pytest.approx(weight / sum(weights), rel=0.02)


def test_a_cap_leaves_the_processor_idle() -> None:
    (did,) = counting("credit,cap=25", ms=120)
    assert did / (120 * MS) == pytest.approx(0.25, abs=0.02)


def test_three_guests_on_two_processors() -> None:
    did = counting(*["rr,slice=1ms,window=20000"] * 3, pcpus=2, ms=30)
    assert sum(did) == pytest.approx(2 * 30 * MS, rel=0.01)
    assert max(did) / min(did) < 1.1


def test_the_same_again() -> None:
    runs = [
        counting(*["credit,slice=1ms,window=20000"] * 3, pcpus=2, ms=10, timing="cycle")
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


def test_who_waits_is_stolen_from_and_a_switch_costs() -> None:
    with (
        VM(elf64(COUNT), memory="4M", sched="rr,slice=1ms", timing="cycle") as one,
        VM(elf64(COUNT), memory="4M", sched="rr,slice=1ms", timing="cycle") as other,
    ):
        machine = Machine(one, other)
        machine.run(until=40 * MS)
        (core,) = machine.host.cores
        assert core.switches == pytest.approx(40, abs=2)
        for vm in (one, other):
            (account,) = vm.ledger.vcpus
            assert account["steal"] / account.total == pytest.approx(0.5, abs=0.04)
            assert account["hypervisor"] >= (core.switches // 2 - 1) * 4812


def test_ends_are_told_each_and_the_others_go_on() -> None:
    with (
        VM(elf64(ENDS), memory="4M", pcpus=2, sched="rr") as one,
        VM(elf64(SLEEPS), memory="4M", pcpus=2) as other,
        VM(elf64(ENDS), memory="4M", pcpus=2) as third,
    ):
        results = Machine(one, other, third).run()
    assert [r and r.reason for r in results] == ["debug_exit", "halted", "debug_exit"]


def test_what_does_not_fit_is_refused() -> None:
    with VM(elf64(SLEEPS), memory="4M") as one, VM(elf64(SLEEPS), memory="4M", pcpus=2) as other:
        with pytest.raises(UsageError, match="--pcpus"):
            Machine(one, other)
        Machine(one)
        with pytest.raises(UsageError, match="Machine"):
            one.run()
