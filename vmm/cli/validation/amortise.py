"""(e) The amortisation law: n operations in one hypercall against n traps.

The law is a + b n: a hypercall has one exit, entry and handler (a) for n operations (b each), while
each trap has all of them. Its figures come from the model's file; beside them is what a guest of
that model reads from its TSC. So a row shows that what is charged is the law, and no more: nobody
has published such a sweep.
"""

from typing import Final

from hwmodel.arch.exits import ExitReason
from hwmodel.arch.model import CpuModel
from vmm.cli.validation.figure import Figure
from vmm.cli.validation.guest import figures

SECTION: Final = "Amortisation of traps by a hypercall"
MODELS: Final = ("nehalem", "westmere", "sandy-bridge", "haswell", "cascade-lake", "zen2")
SHOWN: Final = (1, 2, 8, 64)
_TSC: Final = "measured by the guest from its TSC, caches on"
_QUICKER: Final = "the least n at which the guest found the hypercall quicker"


def measure() -> list[Figure]:
    """Let a guest of each model read its TSC around both ways."""
    rows: list[Figure] = []
    for name in MODELS:
        rows += _rows(CpuModel.load(name), figures("bench_amortise.elf", cpu_model=name))
    return rows


def _rows(model: CpuModel, seen: dict[str, dict[int, int]]) -> list[Figure]:
    clock, costs = seen["clock"][0], model.costs
    trap = costs.round_trip + costs.handler(ExitReason.MSR_WRITE)
    start = costs.round_trip + costs.handler(ExitReason.VMCALL)
    each = costs.handlers[ExitReason.MSR_WRITE]
    traps = {n: cycles - clock for n, cycles in seen["traps"].items()}
    calls = {n: cycles - clock for n, cycles in seen["hypercall"].items()}
    rows = []
    for n in SHOWN:
        by_trap, by_call = f"each of {n} by traps", f"each of {n} in a hypercall"
        rows.append(_figure(model, by_trap, "cycles", trap, traps[n] / n, _TSC))
        rows.append(_figure(model, by_call, "cycles", start / n + each, calls[n] / n, _TSC))
    quicker = next((n for n in sorted(traps) if calls[n] < traps[n]), 0)
    crossover = max(1, start // (trap - each) + 1)
    return [*rows, _figure(model, "crossover n", "operations", crossover, quicker, _QUICKER)]


def _figure(
    model: CpuModel, what: str, unit: str, law: float, measured: float, source: str
) -> Figure:  # fmt: skip
    return Figure(SECTION, model.name, what, unit, law, measured, source, in_file=True)
