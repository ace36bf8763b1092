"""`--at exit:N` and `--at cycle:N`: a moment of a run, and how to get there."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hwmodel.vmx.exit import Exit
from vmm.errors import UsageError
from vmm.vm import VM

LAST_CYCLE: Final = 5_000_000_000
"""Where a guest that never ends is looked at: two seconds of its time."""


class Unit(StrEnum):
    """What is counted."""

    EXIT = "exit"
    CYCLE = "cycle"


@dataclass(frozen=True, slots=True)
class At:
    """Exit number N, from 1, before its handler; or cycle N."""

    unit: Unit
    number: int

    @classmethod
    def of(cls, text: str) -> "At":
        """Read "exit:N" or "cycle:N". Raises UsageError."""
        unit, _, number = text.partition(":")
        if unit not in set(Unit) or not (number.isascii() and number.isdigit()):
            raise UsageError(f"--at {text!r} is not a moment; write exit:1000 or cycle:250000")
        if unit == Unit.EXIT and int(number) == 0:
            raise UsageError(f"--at {text!r}: exits are counted from 1; write exit:1")
        return cls(Unit(unit), int(number))


def run_to(vm: VM, at: At | None) -> Exit | None:
    """Run a fresh VM to a moment; the open exit, if the moment is one.

    None is where the guest ends, or LAST_CYCLE. Raises UsageError if the guest ends before.
    """
    if at is None:
        vm.run_until(LAST_CYCLE)
        return None
    if at.unit is Unit.CYCLE:
        if at.number and (result := vm.run_until(at.number)) is not None:
            raise UsageError(
                f"--at cycle:{at.number}: the guest ended before, at cycle {result.cycles} "
                f"({result.reason}); give an earlier one"
            )
        return None
    last = 0
    for vmexit in vm:
        last = vmexit.sequence
        if last >= at.number:
            return vmexit
    raise UsageError(f"--at exit:{at.number}: the guest makes {last} exits; give an earlier one")


def last_exit(vm: VM) -> At | None:
    """Run a VM to its end, or LAST_CYCLE; its last exit, None if there was none."""
    vm.run_until(LAST_CYCLE)
    exits = vm.exits
    return At(Unit.EXIT, exits[-1].sequence) if exits else None
