"""A Xen PV domain at work: many processes, four processors, their locks, the same run twice.

RING1_PROCESSES says how many processes (the issue's figure is 10000: 11 ms of processor time each).
"""

import re
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.linux.guests import PROMPT, Boot, Console
from tests.linux.test_work import LOOP, PROCESSES, sha256, without_complaint
from tests.linux.test_xen import PV
from vmm.symbols.guest import GuestNames

pytestmark = pytest.mark.slow
MOST_INSTRUCTIONS = 100_000_000_000
FILES = (
    "for n in 1 2 3 4; do ( i=0; while [ $i -lt 100 ]; do echo x >/f$n; mv /f$n /g$n; rm /g$n; "
    "i=$((i+1)); done; echo fi''les $i ) & done; wait"
)
UNLOCK = "__raw_callee_save___pv_queued_spin_unlock"


@dataclass(frozen=True)
class Run:
    """What was said, and what the run was: repeated, all but the text must be the same."""

    text: str
    instructions: int
    cycles: int
    digest: str
    polls: int
    entries: int
    """Hypercalls that were made, each multicall one; cut short, as often as it took."""


def run(boot: Boot, *lines: str, batches: bool = True, **options: Any) -> Run:
    """Type lines, power off; audit."""
    steps = [(PROMPT, f"{line}\n".encode()) for line in (*lines, "poweroff")]
    console = Console([*steps])
    given = {**PV, "max_instructions": MOST_INSTRUCTIONS, **options}
    with boot.vm(console, **given) as vm:
        domain = vm.domain
        assert domain is not None
        domain.engine.set_option("batches", int(batches))
        end = vm.run()
        digest, entries = end.digest(), domain.engine.counters()["traps"]
        assert isinstance(entries, int)
        assert domain.engine.audit()[0] == 0
        assert (domain.engine.breaches(), domain.unknown) == ([], {})
    assert not console.steps, console.text[-2000:]
    assert (end.status, end.reason) == (0, "poweroff")
    text = without_complaint(console.text)
    return Run(text, end.instructions, end.cycles, digest, domain.sched.polls, entries)


def test_many_processes_on_one_processor(generic: Boot) -> None:
    text = run(generic, LOOP.format(n=PROCESSES), "grep processes /proc/stat").text
    assert f"did {PROCESSES}" in text
    assert int(text.rpartition("processes ")[2].split()[0]) > PROCESSES


def test_many_processes_on_four_processors(generic: Boot) -> None:
    loops = f"for n in 1 2 3 4; do ( {LOOP.format(n=PROCESSES // 4)} ) & done; wait; echo al''l"
    text = run(generic, loops, "nproc; grep processes /proc/stat", cpus=4).text
    assert text.count(f"did {PROCESSES // 4}") == 4
    assert "\r\n4\r\nprocesses " in text
    assert int(text.rpartition("processes ")[2].split()[0]) > PROCESSES


def test_each_of_four_processors_works(generic: Boot) -> None:
    """What is pinned to a processor runs there, and computes what the host computes."""
    work = 'seq 1 4000 | sort -rn | sha256sum; cut -d" " -f39 /proc/self/stat'
    text = run(
        generic, f"for n in 0 1 2 3; do taskset -c $n sh -c '{work}' & done; wait",
        "grep callfuncsingle /proc/interrupts", cpus=4,
    ).text  # fmt: skip
    wanted = sha256("".join(f"{n}\n" for n in range(4000, 0, -1)))
    assert text.count(wanted) == 4
    assert sorted(re.findall(r"\n([0-3])\r", text)) == ["0", "1", "2", "3"]
    for number in range(4):
        line = re.search(rf"(.*)xen-percpu +-ipi +callfuncsingle{number}", text)
        assert line is not None
        assert int(line[1].split()[1 + number]) > 0


def test_a_lock_whose_holder_lost_its_turn_is_waited_for_asleep(generic: Boot) -> None:
    """Every 500th holder is preempted as it unlocks: the others poll, and are kicked."""
    with generic.vm(Console([]), **PV) as vm:
        unlock = GuestNames(vm.config, vm.plan).image.find(UNLOCK)
    assert unlock is not None
    sched = f"rr,slice=200us,preempt={unlock:#x}/500"
    one, other = (run(generic, FILES, cpus=4, sched=sched) for _ in range(2))
    assert one.text.count("files 100") == 4
    assert one.polls >= 10
    assert one == other


@pytest.mark.parametrize("cpus", [1, 4])
def test_machine_memory_in_whatever_order_and_again_is_the_same_run(
    generic: Boot, cpus: int
) -> None:
    """Permuted twice: the same digest. Permuted and identical: the same instructions and cycles."""
    one, again, identical = (
        run(generic, "nproc", cpus=cpus, pv_identity=identity) for identity in (False, False, True)
    )
    assert one == again
    assert replace(identical, digest=one.digest) == one


def test_lazy_mmu_mode_and_multicalls_save_hypercalls(generic: Boot) -> None:
    """Forks of a shell that holds 8 MB, with batches and with each cut short behind an operation:
    204,250 and 270,184 entries with Linux 6.1, whose page faults set one page-table entry each.
    """
    work = "x=$(head -c 8000000 /dev/zero | tr '\\0' x); i=0; while [ $i -lt 20 ]; do ( : ); "
    work += "i=$((i+1)); done; echo di''d ${#x}"
    on, off = (run(generic, work, batches=batches) for batches in (True, False))
    assert "did 8000000" in on.text
    assert "did 8000000" in off.text
    assert off.entries - on.entries > 20 * 1950  # pages of each child
    assert off.entries > 1.2 * on.entries
