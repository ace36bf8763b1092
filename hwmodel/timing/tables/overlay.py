"""Rows that take the place of llvm-mca's, and what describes a whole processor."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hwmodel.arch.sourced import ModelError, SourcedTable
from hwmodel.timing.tables.forms import Form, Role

FILE: Final = Path(__file__).with_name("overlay.toml")
PLACEHOLDER: Final = 100
"""The latency of microcode in LLVM's processor models."""
PARAMETERS: Final = ("width", "load", "vector_load", "forward", "moves", "branches")
_STRINGS: Final = ("movs", "stos", "lods", "scas", "cmps", "ins", "outs")


@dataclass(frozen=True, slots=True)
class Row:
    """Takes the place of a form's cost. Cycles; `cycles` is how long nothing else runs."""

    mnemonics: frozenset[str]
    models: frozenset[str]
    memory: bool | None
    placeholder: bool
    latency: int
    uops: int
    cycles: int

    def concerns(self, form: Form, model: str, latency: int | None) -> bool:
        """Whether it is for this form on this model, where llvm-mca says `latency`."""
        if self.models and model not in self.models:
            return False
        if self.memory is not None and self.memory != form.slot.memory:
            return False
        if self.placeholder and latency != PLACEHOLDER:
            return False
        return bool(self.mnemonics & names_of(form))


@dataclass(frozen=True, slots=True)
class Repeat:
    """A REP: its start, and what an iteration takes by operand size, in 1/64 cycle."""

    start: int
    rates: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Overlay:
    """The whole file."""

    default: Row
    models: dict[str, dict[str, int]]
    rows: tuple[Row, ...]
    repeats: tuple[Repeat, ...]


def names_of(form: Form) -> frozenset[str]:
    """What rows may call a form."""
    words = form.text.split()
    name = words[1] if words[0] in ("lock", "rep", "repne", "repe", "notrack", "bnd") else words[0]
    found = {name, "*"}
    operands = form.text.partition(" ")[2]
    if name in ("mov", "pop") and any(s in operands for s in ("cr", "dr")):
        found = {f"{name} {'cr' if 'cr' in operands else 'dr'}", "*"}
    elif name in ("mov", "pop", "push") and form.roles & Role.ENDS:
        found = {f"{name} seg", "*"}
    if name in ("movsd", "cmpsd") and form.slot.map == 0:
        found = {f"{name} string", "*"}
    if form.roles & Role.X87:
        found.add("x87")
    return frozenset(found)


def _row(table: SourcedTable) -> Row:
    def optional(key: str, other: Any) -> Any:
        return table.take(key, type(other)) if key in table.table else other

    memory = table.take("memory", bool) if "memory" in table.table else None
    row = Row(
        frozenset(optional("mnemonics", [])), frozenset(optional("models", [])), memory,
        optional("placeholder", False), _cycles(table, "latency"), _cycles(table, "uops"),
        optional("cycles", 0),
    )  # fmt: skip
    table.source()
    table.done()
    return row


def _cycles(table: SourcedTable, key: str) -> int:
    value = table.integer(key)
    if value < 0:
        raise table.error(key, f"is negative: {value}; give a number from 0")
    return value


def _repeat(table: SourcedTable) -> Repeat:
    start = table.integer("start")
    if "bytes_per_cycle" in table.table:
        speed = table.integer("bytes_per_cycle")
        rates = tuple(max(1, 64 * size // speed) for size in (1, 2, 4, 8))
    else:
        rates = (64 * table.integer("cycles"),) * 4
    table.source()
    table.done()
    return Repeat(start, rates)  # type: ignore[arg-type]


def read(path: Path = FILE) -> Overlay:
    """Read the file. Raises ModelError, one line with file and key, for what is wrong in it."""
    try:
        file = SourcedTable(path.name, "", tomllib.loads(path.read_text()))
    except tomllib.TOMLDecodeError as error:
        raise ModelError(f"{path.name}: not TOML: {error}") from None
    default, repeats = _row(file.section("default")), file.section("repeat")
    models = {name: _model(file, name, raw) for name, raw in _models(file)}
    for name, raw in list(models.items()):
        if "same_as" in raw:
            models[name] = models[raw["same_as"]]
    overlay = Overlay(
        default, models, tuple(_row(row) for row in file.rows("rows")),
        tuple(_repeat(repeats.section(name)) for name in _STRINGS),
    )  # fmt: skip
    repeats.done()
    file.done()
    return overlay


def _models(file: SourcedTable) -> list[tuple[str, Any]]:
    return list(file.take("models", dict).items())


def _model(file: SourcedTable, name: str, raw: Any) -> dict[str, Any]:
    table = SourcedTable(file.file, f"models.{name}", raw)
    if "same_as" in table.table:
        return {"same_as": table.text("same_as")}
    found = {key: table.number(key) for key in PARAMETERS}
    table.done()
    return found
