"""The smallest program that still differs: fewer instructions, plainer state."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from vmm.testing.fuzz.compare import Difference, compare
from vmm.testing.fuzz.record import Program, State

_PLAIN_FX: Final = b"\x7f\x03" + bytes(22) + b"\x80\x1f" + bytes(486)
_RSP: Final = 4
Judge = Callable[[list[Program]], list[tuple[State, State]]]
"""Runs programs on both machines: ours and theirs, for each."""


def shrink(difference: Difference, judge: Judge) -> Difference:
    """Return a difference of the same program made smaller, as long as it differs in the same.

    A register that is zeroed may send an access to where the two machines have different pages:
    that is no smaller form of what was found.
    """
    best, kinds = difference, _kinds(difference)
    for simplify in (_without_one, _plainer):
        while (better := _first_that_differs(simplify(best.program), judge, kinds)) is not None:
            best = better
    return best


def _kinds(difference: Difference) -> set[str]:
    """What differs, by name; memory is one."""
    return {line.split()[0].partition("0x")[0] for line in difference.lines()}


def _first_that_differs(
    candidates: Iterator[Program], judge: Judge, kinds: set[str]
) -> Difference | None:
    programs = list(candidates)
    if not programs:
        return None
    for program, (ours, theirs) in zip(programs, judge(programs), strict=True):
        verdict = compare(program, ours, theirs)
        if isinstance(verdict, Difference) and _kinds(verdict) <= kinds:
            return verdict
    return None


def _without_one(program: Program) -> Iterator[Program]:
    """Leave out an instruction, with and without keeping the others where they are."""
    code = program.instructions
    for n in range(len(code) if len(code) > 1 else 0):
        yield replace(program, instructions=code[:n] + code[n + 1 :])
    for n in range(len(code)):
        nops = b"\x90" * len(code[n])
        if code[n] != nops:
            yield replace(program, instructions=(*code[:n], nops, *code[n + 1 :]))


def _plainer(program: Program) -> Iterator[Program]:
    """Zero a register, the flags, the memory, x87 and SSE."""
    start = program.start
    for n, value in enumerate(start.gpr):
        if value and n != _RSP:
            gpr = (*start.gpr[:n], 0, *start.gpr[n + 1 :])
            yield replace(program, start=replace(start, gpr=gpr))
    if start.rflags != 0x202:
        yield replace(program, start=replace(start, rflags=0x202))
    if any(start.windows):
        yield replace(program, start=replace(start, windows=bytes(len(start.windows))))
    if start.fx != _PLAIN_FX:
        yield replace(program, start=replace(start, fx=_PLAIN_FX))
