"""What a guest learns of another's schedule from the clock, with and without coarse time."""

import math
from collections import Counter
from dataclasses import dataclass
from math import comb, log2
from typing import TYPE_CHECKING, Final

from vmm.experiments.guests import image, parse
from vmm.experiments.report import Claim, Report
from vmm.pv.native.offer import QUANTUM_NS

if TYPE_CHECKING:
    from hwmodel.vmx.exit import Exit
    from vmm.vcpu import Vcpu

IMAGE: Final = "native_attack.elf"
TURN_NS: Final = 500_000
READINGS: Final = 200
MOST_LEFT: Final = 0.01
WAYS: Final = {"as it is": "native", "in steps": "native,+quantised,+limited"}
_NOP: Final = 0x5231_0000


@dataclass(frozen=True, slots=True)
class Attack:
    """Pairs of secret and guess, and the cycles that a reading of the TSC takes."""

    pairs: tuple[tuple[int, int], ...]
    reading: float

    def right(self) -> int:
        """How many guesses were right."""
        return sum(secret == guess for secret, guess in self.pairs)


def run() -> Report:
    """Attack twice."""
    found = {way: attack(dialect) for way, dialect in WAYS.items()}
    plain, coarse = found.values()
    turns_a_second = 1_000_000_000 / TURN_NS
    bits = {way: information(one.pairs) * turns_a_second for way, one in found.items()}
    most = count_bits(QUANTUM_NS // TURN_NS) * 1_000_000_000 / QUANTUM_NS
    before, after = bits["as it is"], max(bits["in steps"], most)
    rows = tuple(
        (way, f"{one.right()} of {len(one.pairs)}", bits[way], one.reading)
        for way, one in found.items()
    )
    return Report(
        "side_channel",
        "A victim's schedule, seen on the clock",
        "Two virtual CPUs share a physical one; the victim works or sleeps in turns of 0.5 ms, the "
        "attacker looks for jumps of the TSC. Leaked bits are the mutual information of secret and "
        f"guess. In steps: TSC and READ_TIME move each {QUANTUM_NS // 1_000_000} ms, so that at "
        "most the number of working turns in a step can be learnt, by counting one's own work.",
        ("clock", "guessed right", "bits a second", "cycles a reading"),
        rows,
        (
            Claim(f"without mitigation {before:.0f} bits a second leak", before > 1000),
            Claim(
                f"with it the attacker learns {bits['in steps']:.1f} bits a second, and none could "
                f"more than {most:.1f} (the entropy of the sum): {after / before:.2%} of that",
                after <= MOST_LEFT * before,
            ),
            Claim(
                f"its cost: a reading of the TSC takes {coarse.reading:.0f} cycles in place of "
                f"{plain.reading:.0f}",
                coarse.reading > plain.reading,
            ),
        ),
    )


def attack(dialect: str) -> Attack:
    """Run attacker and victim."""
    from vmm import VM

    output, marks = bytearray(), list[int]()
    with VM(
        image(IMAGE), memory="64M", cpus=2, timing="cycle", dialects=dialect,
        serial_output=output.extend,
    ) as vm:  # fmt: skip

        def watch(vcpu: "Vcpu", vmexit: "Exit") -> None:
            if vmexit.name == "VMCALL" and vcpu.regs.rax == _NOP:
                marks.append(vm.clock.now)

        vm.watchers.exits.append(watch)
        vm.run()
    found = parse(bytes(output))
    pairs = tuple(zip(found["SECRET"].values(), found["GUESS"].values(), strict=True))
    return Attack(pairs, (marks[1] - marks[0]) / READINGS)


def information(pairs: tuple[tuple[int, int], ...]) -> float:
    """Return the mutual information of both sides, in bits for each pair."""
    total = len(pairs)
    both, left, right = (
        Counter(pairs), Counter(a for a, _ in pairs), Counter(b for _, b in pairs),
    )  # fmt: skip
    return math.fsum(
        n / total * log2(n * total / (left[a] * right[b])) for (a, b), n in both.items()
    )


def count_bits(turns: int) -> float:
    """Return the entropy of how many of `turns` fair bits are set."""
    shares = (comb(turns, k) / 2**turns for k in range(turns + 1))
    return -math.fsum(share * log2(share) for share in shares if share > 0)
