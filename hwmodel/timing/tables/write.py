"""Writes cext/cost_tables.inc."""

from collections.abc import Hashable, Iterable, Sequence
from itertools import combinations
from typing import Any

from hwmodel.timing.tables.forms import Form
from hwmodel.timing.tables.overlay import PARAMETERS, Overlay
from hwmodel.timing.tables.price import ALONE, UNIT, Cost, Priced

CANDIDATES = 62
_WIDTH = 118


def _wrapped(words: Iterable[str]) -> str:
    lines, line = [], ""
    for word in words:
        if len(line) + len(word) > _WIDTH:
            lines.append(line)
            line = ""
        line += word + ","
    return "\n".join([*lines, line])


def _array(kind: str, name: str, words: Iterable[str]) -> str:
    return f"static const {kind} {name}[] = {{\n{_wrapped(words)}\n}};\n"


class Numbered(dict[Any, int]):
    """Numbers for values in the order in which they are first asked for."""

    def of(self, value: Hashable) -> int:
        """The value's number."""
        return self.setdefault(value, len(self))


def _candidates(masks: Sequence[int]) -> list[int]:
    """Sets of ports that may be the bottleneck: the groups, and their unions two by two."""
    plain = [mask for mask in masks if mask != ALONE]
    unions = {a | b for a, b in combinations(plain, 2) if a & b} - set(plain)
    return (sorted(plain) + sorted(unions, key=lambda mask: (mask.bit_count(), mask)))[:CANDIDATES]


def _model(priced: Priced, order: Sequence[int]) -> str:
    name = priced.name.replace("-", "_")
    masks: Numbered = Numbered()
    timings: Numbered = Numbered()
    of_form = [timings.of(_timing(priced.costs[index], masks)) for index in order]
    known = [mask for mask in masks if isinstance(mask, int)]
    candidates = _candidates(known)
    holds = [sum(1 << n for n, c in enumerate(candidates) if mask != ALONE and mask & c == mask)
             for mask in known]  # fmt: skip
    shares = [65536 // mask.bit_count() for mask in candidates]
    return (
        _array("struct timing", f"{name}_timings", map(str, timings))
        + _array("uint16_t", f"{name}_of_form", map(str, of_form))
        + _array("uint64_t", f"{name}_holds", (f"{h:#x}" for h in holds))
        + _array("uint32_t", f"{name}_shares", map(str, shares))
    )


def _timing(cost: Cost, masks: Numbered) -> str:
    uses = sorted(cost.uses, key=lambda use: -use[1])[:MOST_USES]
    alone = sum(units for mask, units in uses if mask == ALONE)
    cells = ",".join(
        f"{{{masks.of(mask)},{min(units, 65535)}}}" for mask, units in uses if mask != ALONE
    )
    count = sum(mask != ALONE for mask, _ in uses)
    return f"{{{cost.latency},{min(alone, 65535)},{cost.uops},{count},{int(cost.known)},{{{cells or '{0,0}'}}}}}"


MOST_USES = 6


def text_of(forms: Sequence[Form], models: Sequence[Priced], overlay: Overlay, version: str) -> str:
    """The whole file. Forms that nobody can tell apart are one."""
    numbers: Numbered = Numbered()
    ids = []
    order: list[int] = []
    for index, form in enumerate(forms):
        key = (int(form.roles), form.reads, form.writes, tuple(m.costs[index] for m in models))
        ids.append(numbers.of(key))
        if len(numbers) > len(order):
            order.append(index)
    slots: dict[tuple[int, int, int], dict[tuple[int, int, int], int]] = {}
    for form, number in zip(forms, ids, strict=True):
        s = form.slot
        place = slots.setdefault((s.map, s.prefix, s.opcode), {})
        place[max(s.reg, 0), int(s.memory), s.size.bit_length() - 2] = number + 1
    selecting = {(f.slot.map, f.slot.prefix, f.slot.opcode) for f in forms if f.slot.reg >= 0}
    return _assemble(forms, models, overlay, version, order, slots, selecting)


def _assemble(forms: Sequence[Form], models: Sequence[Priced], overlay: Overlay, version: str,
              order: Sequence[int], slots: dict[tuple[int, int, int], dict[tuple[int, int, int], int]],
              selecting: set[tuple[int, int, int]]) -> str:  # fmt: skip
    variants: Numbered = Numbered()
    index = ["0"] * (6 * 4 * 256)
    for key, places in sorted(slots.items()):
        regs = range(8) if key in selecting else range(1)
        cells = tuple(
            places.get((reg, memory, size), 0)
            for reg in regs
            for memory in (0, 1)
            for size in (0, 1, 2)
        )
        number = variants.of(cells)
        index[(key[0] * 4 + key[1]) * 256 + key[2]] = str(number + 1)
    starts: list[str] = []
    flat: list[str] = []
    for cells in variants:
        starts.append(str(len(flat) | (0x8000 if len(cells) > 6 else 0)))
        flat += [str(cell) for cell in cells]
    rows = (f"{{{int(forms[i].roles):#x},{forms[i].reads:#x},{forms[i].writes:#x}}}" for i in order)
    head = (
        f"/* Made by `make costs` (python -m hwmodel.timing.tables) with llvm-mca {version} and\n"
        " * hwmodel/timing/tables/overlay.toml; never edited. tests/hwmodel/timing/test_tables.py notices drift. */\n"
    )
    repeats = (f"{{{r.start * UNIT},{{{','.join(map(str, r.rates))}}}}}" for r in overlay.repeats)
    return (
        head
        + _array("struct form", "forms", rows)
        + _array("uint16_t", "slot_of", index)
        + _array("uint16_t", "slot_starts", starts)
        + _array("uint16_t", "variants", flat)
        + _array("struct repeat", "repeats", repeats)
        + "".join(_model(model, order) for model in models)
        + _array("struct cost_table", "tables", map(_entry, models))
    )


def _entry(priced: Priced) -> str:
    name = priced.name.replace("-", "_")
    values = ",".join(str(priced.parameters[key]) for key in PARAMETERS)
    arrays = ",".join(f"{name}_{part}" for part in ("timings", "of_form", "holds", "shares"))
    return f'\n{{"{priced.name}",{values},{arrays},sizeof {name}_shares / sizeof *{name}_shares}}'
