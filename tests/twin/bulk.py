"""Many random page walks, C against twin: `python -m tests.twin.bulk --cases 1000000 --seed 1`.

A case is (tables, address, access, mode). Each drawn address space is looked at with every access
and both privileges, and walked for real once. A difference is printed with the seed that makes it.
"""

import argparse
from collections import Counter
from dataclasses import replace
from random import Random

from hwmodel.arch.model import CpuModel
from hwmodel.mem.reference import Access, Walk
from tests.twin.walking import Case, Walker, case_of

WIDTHS = (46, 36, 40, 52)


def compare(walker: Walker, seed: int, ends: Counter[type]) -> list[str]:
    """Compare all walks of the address space that `seed` draws."""
    model = walker.model
    has_1g = "pdpe1gb" in model.features
    case = case_of(Random(seed), physical_bits=model.physical_bits, has_1g=has_1g)
    walker.put(case)
    found = []
    for access in Access:
        for user in (False, True):
            one = Case(case.entries, case.circumstances, case.linear, access, user)
            found += walker.looking(one, ends)
    ends[Walk] += 1
    return found + walker.walking(case)


def main() -> int:
    """Run; 1 if there was a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    ends: Counter[type] = Counter()
    spaces, wrong = max(1, options.cases // 7), 0
    for number, width in enumerate(WIDTHS):
        model = replace(CpuModel.load("sapphire-rapids"), physical_bits=width)
        model = model.without("pdpe1gb") if number % 2 else model
        walker = Walker(model)
        for n in range(spaces // len(WIDTHS) + 1):
            seed = (options.seed << 40) + (number << 32) + n
            for line in compare(walker, seed, ends):
                print(f"seed {seed}, {width} bits: {line}")  # noqa: T201
                wrong += 1
        walker.close()
    counts = ", ".join(f"{kind.__name__} {n}" for kind, n in ends.items())
    print(f"{sum(ends.values())} cases, {wrong} differences: {counts}")  # noqa: T201
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
