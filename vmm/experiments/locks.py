"""Locks under preemption: the holder loses its turn, and what the others do about it.

With two processors on one, what is wasted is what uncontended rounds do not explain. Turns end
where they happen to (30 ms), or are taken while the lock is held (`preempt=` of --sched).
"""

import re
from dataclasses import dataclass
from typing import Final

from vmm.experiments.guests import MEMORY, image
from vmm.experiments.report import Claim, Report

IMAGE: Final = "native_locks.elf"
EACH: Final = 5000  # acquisitions between two preemptions of the holder
_RESULT: Final = re.compile(rb"acquisitions=([0-9]+) contended=([0-9]+) cycles=([0-9]+)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What all processors of a guest came to; `preemptions` are those placed at the holder."""

    acquisitions: int
    contended: int
    cycles: int
    preemptions: int = 0

    @property
    def rate(self) -> float:
        """Acquisitions in a million cycles."""
        return 1e6 * self.acquisitions / self.cycles

    def wasted(self, alone: "Outcome") -> float:
        """Cycles that uncontended rounds do not explain (`alone` has them), for each that waited.

        Whoever was preempted with the lock made somebody wait, even one that never got it.
        """
        useful = self.acquisitions * alone.cycles / alone.acquisitions
        return (self.cycles - useful) / max(1, self.contended, self.preemptions)


def contend(
    lock: str, us: int, words: str = "", placed: int = 0, *, cpus: int = 1, pcpus: int = 1
) -> Outcome:
    """Run the guest for `us` of its time; `placed` preemptions come each so many acquisitions."""
    from vmm import VM

    text, sched = bytearray(), "credit"
    if placed:
        sched += f",preempt={_held():#x}/{placed}"
    with VM(
        image(IMAGE), cpus=cpus, pcpus=pcpus, memory=MEMORY, timing="cycle", sched=sched,
        dialects="native", serial_output=text.extend,
        cmdline=f"cpus={cpus} lock={lock} us={us} {words}",
    ) as vm:  # fmt: skip
        vm.run()
    found = _RESULT.search(text)
    assert found is not None, bytes(text)
    assert b"FAIL" not in text, bytes(text)
    acquisitions, contended, cycles = map(int, found.groups())
    return Outcome(acquisitions, contended, cycles, acquisitions // placed if placed else 0)


def _held() -> int:
    from vmm.symbols.elf import elf_symbols, open_elf

    elf = open_elf(image(IMAGE).read_bytes())
    return next(s.address for s in elf_symbols(elf) if s.name == "lock_held")


def run() -> Report:
    """Two processors on one, then eight on four."""
    alone = {lock: contend(lock, 20_000) for lock in ("ticket", "pv")}
    pairs = {
        ("ticket", "slices"): contend("ticket", 200_000, "nopause", cpus=2),
        ("pv", "slices"): contend("pv", 200_000, "nopause", cpus=2),
        ("ticket", "placed"): contend("ticket", 50_000, "nopause", EACH, cpus=2),
        ("pv", "placed"): contend("pv", 50_000, "nopause", EACH, cpus=2),
    }
    wasted = {key: outcome.wasted(alone[key[0]]) for key, outcome in pairs.items()}
    crowds = {lock: contend(lock, 10_000, cpus=8, pcpus=4) for lock in ("ticket", "pv")}
    rows = [
        (f"2 on 1, {how}", lock, o.acquisitions, max(o.contended, o.preemptions), wasted[lock, how])
        for (lock, how), o in pairs.items()
    ]
    rows += [("8 on 4", lock, o.acquisitions, o.contended, o.rate) for lock, o in crowds.items()]
    return Report(
        "locks",
        "Locks under preemption",
        "Virtual CPUs take one lock again and again (500 loops with it, 500 without) under the "
        "credit scheduler with its slice of 30 ms. Two on one: nothing notices that somebody "
        f"spins; turns end with the slice, or are taken from the holder each {EACH} acquisitions. "
        "Eight on four: PAUSE loops exit and give the turn away. Last column: cycles wasted for "
        "each that waited; with eight, acquisitions in a million cycles.",
        ("machine", "lock", "acquisitions", "waited", "wasted, or rate"),
        tuple(rows),
        _claims(wasted, crowds),
    )  # fmt: skip


def _claims(wasted: dict[tuple[str, str], float], crowds: dict[str, Outcome]) -> tuple[Claim, ...]:
    claims = []
    for how, words in (("slices", "slices that end"), ("placed", "the holder preempted")):
        ticket, pv = wasted["ticket", how], wasted["pv", how]
        claims.append(
            Claim(
                f"2 on 1, {words}: {ticket:,.0f} cycles are wasted on who waits for a ticket, "
                f"{pv:,.0f} with the paravirtual lock: {ticket / pv:,.0f} times fewer",
                ticket >= 100 * pv > 0,
            )
        )
    times = crowds["pv"].rate / crowds["ticket"].rate
    return (
        *claims,
        Claim(f"8 on 4: the paravirtual lock is had {times:.1f} times as often", times >= 3),
    )
