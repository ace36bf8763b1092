"""One guest held in several ways: what each cost, side by side.

The guest sees the same under each; under `--timing fast`, where time does not depend on what
holding it costs, to the digest.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from vmm.config import Config
from vmm.pv.roster import DEFAULT
from vmm.vm import VM

SCHEMA: Final = "ring1.compare/1"
WAYS: Final[Mapping[str, Mapping[str, str]]] = {
    "trap": {"technique": "trap"},
    "vtx+shadow": {"technique": "vtx", "mmu": "shadow"},
    "vtx+ept": {"technique": "vtx", "mmu": "ept"},
    "vtx+native": {"technique": "vtx", "mmu": "ept"},
    "pv": {"technique": "pv"},
}
"""Oldest first. Names and the options that they stand for."""
WITH_NATIVE: Final = "vtx+native"
"""Here the guest is offered the native dialect as well; what it makes of it is its own affair."""
USUAL: Final = ("trap", "vtx+shadow", "vtx+ept", WITH_NATIVE)
"""Those that any image has; `pv` is for kernels that know Xen."""


@dataclass(frozen=True, slots=True)
class Run:
    """One way's run. `walks` counts page walks and the memory references that they made."""

    way: str
    status: int
    reason: str
    message: str
    instructions: int
    cycles: int
    exits: Mapping[str, int]
    exit_cycles: Mapping[str, int]
    hardware_exits: Mapping[str, int]
    """The same exits as the processor saw them."""
    patched: int
    """Executions of instructions that were replaced at translation."""
    hypercalls: int
    hypercalls_by_name: Mapping[str, int]
    """Of a Xen PV guest, those that the engine carried out by itself too."""
    walks: Mapping[str, int]
    ledger: Mapping[str, int]
    digest: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs of one image; `same` is whether the guest saw no difference."""

    runs: tuple[Run, ...]

    @property
    def same(self) -> bool:
        """Whether all ended alike and, where they did so at the same time, with the same digest.

        A guest that is offered another dialect may do other things, and is not held against it.
        """
        alike = [run for run in self.runs if run.way != WITH_NATIVE] or self.runs
        ends = {(run.status, run.reason) for run in alike}
        at_one_time = len({run.cycles for run in alike}) == 1
        digests = {run.digest for run in alike}
        return len(ends) == 1 and (not at_one_time or len(digests) == 1)

    def rows(self) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        """Yield (group, what, one number a run); exits by the largest number, then by name."""
        yield from self._group("exits", "exits", by_size=True)
        yield "exits", "total", tuple(sum(run.exits.values()) for run in self.runs)
        yield "exits", "patched", tuple(run.patched for run in self.runs)
        yield "walks", "hypercalls", tuple(run.hypercalls for run in self.runs)
        yield from self._group("walks", "walks")
        yield from self._group("hypercalls", "hypercalls_by_name", by_size=True)
        yield from self._group("cycles", "ledger")
        yield "cycles", "total", tuple(run.cycles for run in self.runs)

    def _group(
        self, group: str, field: str, *, by_size: bool = False
    ) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        parts: list[Mapping[str, int]] = [getattr(run, field) for run in self.runs]
        names = list(dict.fromkeys(name for part in parts for name in part))
        found = [(name, tuple(part.get(name, 0) for part in parts)) for name in names]
        if by_size:
            found.sort(key=lambda row: (-max(row[1]), row[0]))
        for name, counts in found:
            if any(counts):
                yield group, name, counts

    def to_json(self) -> str:
        """Return one line of JSON without the newline."""
        runs = [asdict(run) for run in self.runs]
        return json.dumps({"schema": SCHEMA, "same": self.same, "runs": runs})


def compare(options: Mapping[str, Any], ways: tuple[str, ...] = USUAL) -> Comparison:
    """Run one image in each way; `options` are Config's, without `technique` and `mmu`."""
    configs = [  # all are checked before one runs
        Config.of(**{**options, **WAYS[way], **_dialects(options, way)}) for way in ways
    ]
    return Comparison(tuple(map(_run, ways, configs)))


def _dialects(options: Mapping[str, Any], way: str) -> dict[str, Any]:
    """What this way changes of the dialects: the native one stands behind those asked for."""
    given = options.get("dialects") or [DEFAULT]
    return {"dialects": [*given, "native"]} if way == WITH_NATIVE else {}


def _run(way: str, config: Config) -> Run:
    with VM(config=config) as vm:
        result = vm.run()
        mmu, counters = vm.pcpu.mmu_counters(), vm.pcpu.counters()
        walks = {
            "walks": counters["tlb_walks"],
            "guest references": _number(mmu["guest_references"]),
            "EPT references": _number(mmu["ept_references"]),
        }
        calls = vm.domain.hypercalls() if vm.domain is not None else {}
        return Run(
            way, result.status, result.reason, result.message, result.instructions, result.cycles,
            _sorted(result.exits), _sorted(result.exit_cycles), _sorted(vm.pcpu.exits_by_name()),
            counters["patched"], sum(calls.values()) or result.exits.get("VMCALL", 0), calls,
            walks, result.ledger, vm.digest(),
        )  # fmt: skip


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _number(value: int | list[int]) -> int:
    return value if isinstance(value, int) else sum(value)
