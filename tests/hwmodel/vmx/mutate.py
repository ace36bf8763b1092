"""Leave out each entry check in turn; its cases must then be red: `make mutate`.

A check whose cases stay green is one that nothing tests.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from hwmodel.vmx.native import check_names
from tests.hwmodel.vmx.cases import Case
from tests.hwmodel.vmx.entering import ALL, Entering, expected, told


def is_red(case: Case, skipped: int) -> bool:
    """Whether a case notices that check number `skipped` is not made."""
    machine = Entering(case.mode)
    machine.pcpu.skip_check(skipped)
    machine.change(case)
    seen = told(machine.pcpu, machine.attempt())
    machine.close()
    return seen != expected(case)


def survivors(names: Iterable[str]) -> list[str]:
    """The checks, of those named, that can be left out without a case noticing."""
    number = check_names().index
    return [
        name
        for name in names
        if not any(is_red(case, number(name)) for case in ALL if case.check == name)
    ]


if __name__ == "__main__":
    left = survivors(names := check_names())
    print(f"{len(names)} checks left out in turn, {len(left)} not missed", *left, sep="\n")
    sys.exit(bool(left))
