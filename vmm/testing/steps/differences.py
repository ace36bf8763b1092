"""The committed table of what old processors do otherwise: differences.toml, read and applied."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from vmm.testing.steps.machine import ARITHMETIC, Ended
from vmm.testing.steps.step import Step, Suite

_TOP: Final = 0xF000
"""A segment above this reaches beyond 1 MiB."""


@dataclass(frozen=True, slots=True)
class Known:
    """One row."""

    name: str
    cpu: tuple[str, ...]
    leaves: str
    by: str
    why: str
    source: str
    forms: tuple[str, ...] = ()
    prefix: int | None = None
    raised: int | None = None
    recorded: int | None = None
    wraps: bool = False
    edge: bool = False
    """An access of the step lies over the end of a segment."""

    def fits(self, cpu: str, step: Step, ended: Ended) -> bool:
        """Say whether the row may explain what differs."""
        form = (step.form, f"{step.form}.{step.extension}")
        return (
            cpu in self.cpu
            and (not self.forms or any(word in self.forms for word in form))
            and (self.prefix is None or self.prefix in step.prefixes)
            and (self.raised is None or self.raised == ended.vector)
            and (self.recorded is None or self.recorded == step.exception)
            and (not self.wraps or _reaches_above(step))
            and (not self.edge or _lies_over_an_end(step))
        )


def _reaches_above(step: Step) -> bool:
    return any(step.before[name] > _TOP for name in ("cs", "ds", "es", "ss"))


def _lies_over_an_end(step: Step) -> bool:
    """Both the last and the first byte of one segment are the step's."""
    touched = step.memory.keys() | step.memory_after.keys()
    bases = (step.before[name] << 4 for name in ("ds", "es", "ss", "cs"))
    return any(base + 0xFFFF in touched and base in touched for base in bases)


@cache
def table() -> tuple[Known, ...]:
    """Return the rows."""
    text = (files("vmm.testing.steps") / "differences.toml").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = tomllib.loads(text)["difference"]
    return tuple(_known(row) for row in rows)


def _known(row: dict[str, Any]) -> Known:
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
    return Known(**plain)


def judge(suite: Suite, step: Step, ended: Ended) -> tuple[str | None, list[str]]:
    """Return the name of the row that explains what differs, and the lines that none does."""
    parts = dict(_differing(suite, step, ended))
    if not parts:
        return None, []
    for known in table():
        if known.fits(suite.cpu, step, ended):
            left = [line for part, line in parts.items() if known.leaves not in ("all", part)]
            if not left:
                return known.name, []
    return None, list(parts.values())


def _differing(suite: Suite, step: Step, ended: Ended) -> Iterator[tuple[str, str]]:
    """Yield "registers", "flags" and "memory", each with a line, where they differ."""
    wanted = step.expected
    lines = [
        f"{name} {ended.registers[name]:#x} {value:#x}" for name, value in wanted.items()
        if name != "flags" and ended.registers[name] != value
    ]  # fmt: skip
    if lines:
        yield "registers", ", ".join(lines)
    mask = suite.flags_of(step) & ARITHMETIC
    mine, theirs = ended.registers["flags"] & mask, wanted["flags"] & mask
    if mine != theirs:
        yield "flags", f"flags {mine:#x} {theirs:#x}"
    pushed = _pushed_flags(step)
    memory = dict(step.memory) | dict(step.memory_after)
    bytes_ = [
        f"[{at:#x}] {ended.memory[at]:#x} {value:#x}" for at, value in memory.items()
        if ended.memory[at] != value and at not in pushed
    ]  # fmt: skip
    if bytes_:
        yield "memory", ", ".join(bytes_)


def _pushed_flags(step: Step) -> tuple[int, ...]:
    """Where an exception or an 8086's PUSHF put flags: bits 15:12 are each processor's own."""
    if step.flags_at is not None:
        return (step.flags_at, step.flags_at + 1)
    if step.form in ("9C", "CC", "CD", "CE"):
        top = step.before["ss"] << 4
        return tuple(top + (step.before["sp"] - n & 0xFFFF) for n in (1,))
    return ()
