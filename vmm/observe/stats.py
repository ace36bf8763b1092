"""The statistics of a run, as numbers and as JSON; tables are the command line's affair."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

SCHEMA = "ring1.stats/1"


class RunResult(Protocol):
    """What ``VM.run()`` returns, as far as statistics look at it."""

    @property
    def status(self) -> int:
        """The process status."""

    @property
    def reason(self) -> str:
        """A ``StopReason``."""

    @property
    def message(self) -> str:
        """One line for people: where (RIP, mode) and what to do; empty after a good end."""

    @property
    def last_exits(self) -> Sequence[str]:
        """The last exits as text, oldest first."""

    @property
    def instructions(self) -> int:
        """Instructions retired; one with a REP prefix counts as one."""

    @property
    def cycles(self) -> int:
        """Cycles of the virtual clock."""

    @property
    def exits(self) -> Mapping[str, int]:
        """Count per exit name."""

    @property
    def exit_cycles(self) -> Mapping[str, int]:
        """Cycles per exit name."""

    @property
    def ledger(self) -> Mapping[str, int]:
        """Cycles per heading; they sum to ``cycles``."""

    @property
    def hardware_exits(self) -> Mapping[str, int]:
        """Count per exit as the processor saw it: differs from ``exits`` under ``trap`` only."""

    @property
    def patched(self) -> int:
        """Executions of instructions that were replaced at translation."""

    def digest(self) -> str:
        """Return the SHA-256 over RAM, registers and devices, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """One run in numbers; the fields are the keys of the JSON form, in this order."""

    schema: str
    status: int
    reason: str
    instructions: int
    cycles: int
    wall_seconds: float
    exits: dict[str, int]
    exit_cycles: dict[str, int]
    ledger: dict[str, int]
    digest: str
    hardware_exits: dict[str, int]
    patched: int

    @classmethod
    def of(cls, result: RunResult, wall_seconds: float, *, digest: bool = True) -> "Statistics":
        """Collect from a result; a digest reads all memory, so a table does without."""
        return cls(
            SCHEMA,
            int(result.status),
            str(result.reason),
            result.instructions,
            result.cycles,
            round(wall_seconds, 6),
            dict(sorted(result.exits.items())),
            dict(sorted(result.exit_cycles.items())),
            dict(result.ledger),
            result.digest() if digest else "",
            dict(sorted(result.hardware_exits.items())),
            result.patched,
        )

    def rows(self) -> list[tuple[str, int, float, int]]:
        """Return (name, count, share of all exits 0 to 1, cycles), most frequent first."""
        total = sum(self.exits.values()) or 1
        rows = [
            (name, count, count / total, self.exit_cycles.get(name, 0))
            for name, count in self.exits.items()
            if count
        ]
        return sorted(rows, key=lambda row: (-row[1], row[0]))

    def to_json(self) -> str:
        """Return one line of JSON without the newline."""
        return json.dumps(asdict(self))
