"""(c) Exit round trips by microarchitecture: hardware's part, and what a guest of KVM sees."""

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from hwmodel.arch.model import CpuModel
from vmm.cli.validation.figure import Figure
from vmm.cli.validation.guest import repeated

SECTION: Final = "Exit round trips"


@dataclass(frozen=True, slots=True)
class Published:
    """A figure, and the row of the bench that it is compared with ("": exit and entry alone)."""

    model: str
    what: str
    row: str
    cycles: int
    source: str
    in_file: bool = False
    note: str = ""


def published() -> list[Published]:
    """Read roundtrips.toml."""
    text = files("vmm.cli.validation").joinpath("roundtrips.toml").read_text()
    return [Published(**row) for row in tomllib.loads(text)["figures"]]


def measure() -> list[Figure]:
    """Run each model once, and look the rows up."""
    runs: dict[str, dict[str, float]] = {}
    rows = []
    for one in published():
        if one.row and one.model not in runs:
            runs[one.model] = repeated("bench_costs.elf", percent=2, cpu_model=one.model)
        costs = CpuModel.load(one.model).costs
        predicted = runs[one.model][one.row] if one.row else float(costs.round_trip)
        rows.append(
            Figure(
                SECTION,
                one.model,
                one.what,
                "cycles",
                predicted,
                one.cycles,
                one.source,
                one.in_file,
                one.note,
            )
        )
    return rows
