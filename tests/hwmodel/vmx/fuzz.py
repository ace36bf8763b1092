"""Random VMCS images through entry, the C engine against its twin: `python tests/hwmodel/vmx/fuzz.py --count 1000000`.

An image is a good one in some mode with a few fields changed: to random bits, to one bit flipped, to
values that checks are about, or (one in sixteen) every field random. The verdict, the check that it
fails by and how it is told must be the twin's; an image that is let in runs for a few instructions,
which must come back. `--verify` compares every single check, not only the first that fails.
"""

import argparse
import sys
import time
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[3]))

from hwmodel.arch.vmcs import Field, Group
from hwmodel.vmx.capabilities import Capabilities
from hwmodel.vmx.checks import CHECKS, Stage, first_failure
from hwmodel.vmx.exit import INTERNAL
from tests.hwmodel.vmx.entering import EVERYTHING, Entering, told

MODES = ("long", "protected", "real", "v8086", "pae")
WRITABLE = [field for field in Field if field.group is not Group.EXIT_INFORMATION]
VALUES = (0, 1, 0xFFF, 0x1000, 0x1008, 0x30_0000, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 45, 1 << 46,
          1 << 47, (1 << 47) - 1, 1 << 63, (1 << 64) - 1, -1 << 47)  # fmt: skip
RUNS = 20  # cycles


def spoil(machine: Entering, random: Random) -> None:
    """Change the VMCS."""
    if random.random() < 1 / 16:
        for field in WRITABLE:
            machine.vmcs[field] = random.getrandbits(64)
        return
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        field = random.choice(WRITABLE)
        kind = random.random()
        if kind < 0.5:
            machine.vmcs[field] ^= 1 << random.randrange(field.width.bits)
        elif kind < 0.8:
            machine.vmcs[field] = random.choice(VALUES)
        else:
            machine.vmcs[field] = random.getrandbits(64)


def expected(machine: Entering) -> tuple[str, int, str | None]:
    """What the twin says of the entry."""
    failure = first_failure(machine.view())
    if failure is None:
        return "enters", 0, None
    if failure.stage is Stage.GUEST:
        return "INVALID_STATE", int(failure.qualification), failure.name
    return "VM_FAIL", 7 if failure.stage is Stage.CONTROLS else 8, failure.name


class Fuzzer:
    """Machines in each mode, put back to their start before each image."""

    def __init__(self) -> None:
        self.machines = [Entering(mode) for mode in MODES]
        self.images = [machine.vmcs.save() for machine in self.machines]
        self.memories = [bytes(machine.ram.view) for machine in self.machines]

    def attempt(self, seed: int, *, verify: bool = False) -> str | None:
        """Try one image; what disagrees, None if nothing."""
        random = Random(seed)
        n = random.randrange(len(MODES))
        machine = self.machines[n]
        machine.vmcs.restore(self.images[n])
        machine.allow(EVERYTHING if random.random() < 0.3 else Capabilities.implemented())
        spoil(machine, random)
        wanted = expected(machine)
        if verify:
            view = machine.view()
            for index, check in enumerate(CHECKS):
                if machine.pcpu.check_passes(machine.vmcs, index) != check.rule(view):
                    return f"seed {seed}: check {check.name} is not its twin's"
        if wanted[0] == "enters" and machine.capabilities is EVERYTHING:
            return None  # with controls that the engine does not do; the checks agreed
        vmexit = machine.enter(machine.clock.now + RUNS)
        self._put_back(n)
        name, number, check_name = told(machine.pcpu, vmexit)
        if wanted[0] == "enters":
            ran = check_name is None and vmexit.reason != INTERNAL
            return None if ran else f"seed {seed}: {name} {check_name}, the twin enters"
        if (name, number, check_name) != wanted:
            return f"seed {seed}: {name} {number} {check_name}, the twin says {wanted}"
        return None

    def _put_back(self, n: int) -> None:
        machine, log = self.machines[n], self.machines[n].pcpu.dirty_log
        for index, word in enumerate(log):
            if word:
                log[index] = 0
                at, size = index * 64 * 4096, 64 * 4096
                machine.poke(at, self.memories[n][at : at + size])
                log[index] = 0
        machine.pcpu.harvest_dirty()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verify", action="store_true")
    options = parser.parse_args()
    fuzzer, found, began = Fuzzer(), 0, time.monotonic()
    for seed in range(options.seed, options.seed + options.count):
        if what := fuzzer.attempt(seed, verify=options.verify):
            print(what, flush=True)
            found += 1
            if found == 20:
                break
    print(
        f"{options.count} images from seed {options.seed}, {found} findings, {time.monotonic() - began:.0f} s"
    )
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
