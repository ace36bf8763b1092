"""A processor's costs of all forms: llvm-mca's with the overlay over them, in the units of C."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hwmodel.timing.tables.forms import Form, Role
from hwmodel.timing.tables.mca import Table, Timing
from hwmodel.timing.tables.overlay import Overlay, Row

UNIT: Final = 64
ALONE: Final = -1
"""The group that stands for the whole processor: nothing else runs."""
_INTEL: Final = {"2": "load", "3": "load", "7": "load", "8": "load", "23": "load", "4": "data",
                 "9": "data"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cost:
    """Cycles and micro-operations; `uses` are (mask of ports, units), ALONE for all of them."""

    latency: int
    uops: int
    uses: tuple[tuple[int, int], ...]
    known: bool


@dataclass(frozen=True, slots=True)
class Priced:
    """A processor: a cost for each form, the masks in them, parameters."""

    name: str
    costs: tuple[Cost, ...]
    parameters: dict[str, int]


def family_of(resource: str) -> str:
    """Which resources can stand in for each other."""
    if found := re.search(r"Port(\d+)", resource):
        return _INTEL.get(found[1], "alu")
    return re.sub(r"[\d.\x00-\x1f]+$", "", resource)


def uses_of(resources: Sequence[str], pressure: Sequence[float]) -> tuple[tuple[int, int], ...]:
    """Take a distribution over ports apart into groups of ports.

    llvm-mca spreads each use evenly over its group. Within a family groups are nested: the level
    that all have in common belongs to the widest one.
    """
    families: dict[str, list[int]] = {}
    for index, name in enumerate(resources):
        if pressure[index] > 0.005:
            families.setdefault(family_of(name), []).append(index)
    uses = []
    for members in families.values():
        level = 0.0
        while members:
            least = min(pressure[index] for index in members)
            units = round((least - level) * len(members) * UNIT)
            if units > 1:
                uses.append((sum(1 << index for index in members), units))
            level = least
            members = [index for index in members if pressure[index] > least + 0.005]
    return tuple(sorted(uses))


def price(name: str, table: Table, overlay: Overlay, forms: Sequence[Form],
          partners: Sequence[int]) -> Priced:  # fmt: skip
    """Price `forms`; `partners` is the register form of each, itself if it has none."""
    loads = _load_latencies(table, forms)
    costs = []
    for index, form in enumerate(forms):
        timing = table.timings[index]
        row = next((r for r in overlay.rows
                    if r.concerns(form, name, timing.latency if timing else None)), None)  # fmt: skip
        if row is not None:
            costs.append(_overlaid(row, timing, table))
        elif timing is None:
            costs.append(_overlaid(overlay.default, None, table, known=False))
        else:
            partner = table.timings[partners[index]] or timing
            costs.append(_measured(form, timing, partner, loads, table.resources))
    return Priced(name, tuple(costs), overlay.models[name])


def _overlaid(row: Row, timing: Timing | None, table: Table, *, known: bool = True) -> Cost:
    memory = [r for r in table.resources if family_of(r) in ("load", "data")]
    uses: list[tuple[int, int]] = []
    if timing is not None and row.cycles < 4:
        kept = [
            p if r in memory else 0.0 for r, p in zip(table.resources, timing.pressure, strict=True)
        ]
        uses += uses_of(table.resources, kept)
    if row.cycles:
        uses.append((ALONE, row.cycles * UNIT))
    return Cost(row.latency, row.uops, tuple(uses), known)


def _load_latencies(table: Table, forms: Sequence[Form]) -> tuple[int, int]:
    """What llvm-mca takes a load of a general and of a vector register to last."""
    found = {}
    for form, timing in zip(forms, table.timings, strict=True):
        if timing and form.slot.memory and form.slot.size == 8:
            found[form.text.split(",")[0]] = timing.latency
    return found["mov r9"], found["movdqu xmm9"]


def _measured(form: Form, timing: Timing, partner: Timing, loads: tuple[int, int],
              resources: Sequence[str]) -> Cost:  # fmt: skip
    latency = timing.latency
    if form.roles & Role.LOADS:
        vector = bool(form.roles & (Role.VECTOR_REG | Role.VECTOR_RM))
        latency = partner.latency if partner is not timing else max(0, latency - loads[vector])
    uops = timing.uops
    if form.roles & Role.LOADS and uops > 1 and partner is not timing:
        uops = max(partner.uops, uops - 1)  # a load and what uses it are one in the front end
    if form.roles & Role.LOADS and partner is not timing and form.text.startswith("mov"):
        latency = 0
    return Cost(min(latency, 4000), min(uops, 255), uses_of(resources, timing.pressure), True)
