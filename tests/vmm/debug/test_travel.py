"""Forward n and back n is where it was: however the guest is held, with one virtual CPU and with
four, in both timings.

A sample in the ordinary tests; `RING1_STOPS=500` makes it six thousand stops, while something else
takes the host's processor.
"""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.images import elf64
from tests.vmm.debug.test_session import HELD, WORK
from vmm import VM
from vmm.debug.driver import Goal
from vmm.debug.session import Session

STOPS = int(os.environ.get("RING1_STOPS", "5"))  # for each way; many are made under load
END = 600_000  # by then all virtual CPUs of smp.elf are up and wait for each other
every_way = pytest.mark.parametrize(
    ("held", "cpus", "timing"),
    [(held, cpus, timing) for held in HELD for cpus in (1, 4) for timing in ("fast", "cycle")]
    + [("vtx", 1, "detailed"), ("vtx", 4, "detailed")],
)


@contextmanager
def load() -> Iterator[None]:
    """Another process that never waits."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            yield
        finally:
            busy.kill()


def travel(vm: VM, stops: int, chance: random.Random) -> None:
    """Stop anywhere, go on, go back, by steps and by exits: time, memory, registers, devices."""
    session = Session(vm, interval=1 << 13)
    end = session.resume(Goal(steps=END)).moment.steps
    for number in range(stops):
        at, count = chance.randrange(1, end - 1), chance.randrange(1, 300)
        session.goto_step(at)
        seen = session.now, vm.digest(), vm.ledger.as_dict()
        if number % 4:
            count = min(count, end - session.now.steps)
            session.step(count)
            session.reverse_step(count)
        else:
            exits, steps = session.now.exits + count % 5, session.now.steps + 5000
            session.resume(Goal(exits=exits, steps=steps))  # it may wait for long without an exit
            session.goto(seen[0])
        assert (session.now, vm.digest(), vm.ledger.as_dict()) == seen


def options(held: str, cpus: int, timing: str) -> dict[str, Any]:
    return HELD[held] | {"cpus": cpus, "timing": timing, "memory": "4M"}


@every_way
def test_forward_and_back(held: str, cpus: int, timing: str, images: Path) -> None:
    image = images / "smp.elf" if cpus > 1 else elf64(WORK)
    with load() if STOPS > 5 else nullcontext(), VM(image, **options(held, cpus, timing)) as vm:
        travel(vm, STOPS, random.Random(f"{held} {cpus} {timing} {STOPS}"))
