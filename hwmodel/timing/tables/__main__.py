"""Makes the table: python -m hwmodel.timing.tables (which `make costs` says)."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from hwmodel.timing.tables.forms import Form, Role, enumerate_forms
from hwmodel.timing.tables.mca import CPUS, McaError, Timing, disassemble, measure, version
from hwmodel.timing.tables.overlay import read
from hwmodel.timing.tables.price import price
from hwmodel.timing.tables.write import text_of

PATH: Final = Path(__file__).parents[3] / "cext" / "cost_tables.inc"


def partners_of(forms: list[Form]) -> list[int]:
    """For a form with a memory operand the one with a register, else itself."""
    plain = {(f.slot.map, f.slot.prefix, f.slot.opcode, f.slot.reg, f.slot.size): n
             for n, f in enumerate(forms) if not f.slot.memory}  # fmt: skip
    found = []
    for number, form in enumerate(forms):
        s = form.slot
        other = plain.get((s.map, s.prefix, s.opcode, s.reg, s.size), number)
        same = forms[other].text.split()[0] == form.text.split()[0]
        found.append(other if form.slot.memory and same else number)
    return found


def in_memory(form: Form, timing: Timing | None) -> Form:
    """LLVM is surer than capstone of which instructions read and write memory."""
    if not form.slot.memory or timing is None:
        return form
    roles = form.roles & ~(Role.LOADS | Role.STORES)
    roles |= (Role.LOADS if timing.loads else Role(0)) | (Role.STORES if timing.stores else Role(0))
    return replace(form, roles=roles)


def made() -> str:
    """The text of the table. Raises McaError without llvm-mca, ModelError for the overlay."""
    overlay, forms = read(), enumerate_forms()
    texts = disassemble([form.code for form in forms])
    tables = {name: measure(name, texts) for name in sorted(CPUS)}
    forms = [in_memory(f, t) for f, t in zip(forms, tables["skylake-x"].timings, strict=True)]
    partners = partners_of(forms)
    models = [price(name, table, overlay, forms, partners) for name, table in tables.items()]
    return text_of(forms, models, overlay, version())


if __name__ == "__main__":
    try:
        PATH.write_text(made())
    except McaError as error:
        sys.exit(f"{error}")
