"""Turns that are taken at an instruction: from whom, how often, and that nothing else moves."""

import re
from typing import Any

import pytest

from vmm import VM
from vmm.errors import UsageError
from vmm.experiments.guests import image
from vmm.sched.host import HostScheduler
from vmm.schedule import SchedOptions
from vmm.symbols.elf import elf_symbols, open_elf

LOCKS = image("native_locks.elf")
HELD = next(
    symbol.address
    for symbol in elf_symbols(open_elf(LOCKS.read_bytes()))
    if symbol.name == "lock_held"
)


def run(lock: str, sched: str, cpus: int = 2, pcpus: int = 1) -> tuple[int, Any, HostScheduler]:
    """How often the lock was had."""
    said = bytearray()
    with VM(
        LOCKS, cpus=cpus, pcpus=pcpus, sched=sched, memory="16M", timing="cycle",
        dialects="native", serial_output=said.extend, cmdline=f"cpus={cpus} lock={lock} us=2000",
    ) as vm:  # fmt: skip
        result = vm.run()
        host = vm.scheduler
    assert result.status == 1, said.decode()
    found = re.search(rb"acquisitions=([0-9]+)", said)
    assert found is not None
    assert isinstance(host, HostScheduler)
    return int(found[1]), result, host


def test_each_nth_holder_loses_its_turn() -> None:
    had, _, host = run("pv", f"credit,preempt={HELD:#x}/100")
    placed = host.guests[0].placed
    assert placed is not None
    assert placed.arrivals == had > 1000
    assert host.cores[0].switches >= 2 * (had // 100), "the other one had it each time"


def test_who_holds_makes_others_wait() -> None:
    without, _, _ = run("ticket", "credit")
    preempted, _, _ = run("ticket", f"credit,preempt={HELD:#x}/10")
    assert preempted < without / 3


@pytest.mark.parametrize("pcpus", [1, 2])
def test_a_place_where_nobody_loses_its_turn_moves_nothing(pcpus: int) -> None:
    plain = run("pv", "rr,slice=200us", pcpus=pcpus)[:2]
    placed = run("pv", f"rr,slice=200us,preempt={HELD:#x}/1000000000", pcpus=pcpus)[:2]
    assert plain[0] == placed[0]
    first, second = plain[1], placed[1]
    assert (first.cycles, first.instructions, first.ledger) == (
        second.cycles, second.instructions, second.ledger,
    )  # fmt: skip


def test_the_same_again() -> None:
    runs = [run("pv", f"credit,preempt={HELD:#x}/7", cpus=3, pcpus=2) for _ in range(2)]
    (had, first, _), (again, second, _) = runs
    assert had == again
    assert (first.cycles, first.exits, first.ledger) == (second.cycles, second.exits, second.ledger)


@pytest.mark.parametrize("word", ["preempt", "preempt=held", "preempt=0x1/0", "preempt=0x10/x"])
def test_bad_places_are_refused(word: str) -> None:
    with pytest.raises(UsageError, match=re.escape(word)):
        SchedOptions.of(f"credit,{word}")


def test_whoever_is_woken_from_the_past_is_not_charged_twice() -> None:
    """The waker's physical CPU may be a window behind the one where the sleeper went to sleep."""
    _, result, _ = run("pv", "credit,window=10000", pcpus=2)
    assert sum(result.ledger.values()) == 2 * result.cycles
