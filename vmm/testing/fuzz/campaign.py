"""Many programs on two machines: what differs, and what of that is known."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vmm.testing.fuzz.compare import Difference, compare, differing
from vmm.testing.fuzz.generate import programs
from vmm.testing.fuzz.machines import HostMachine, Machine
from vmm.testing.fuzz.record import MOST, RECORD_BYTES, Program, State, make_batch


@dataclass(slots=True)
class Findings:
    """What a run over some programs found; findings of two spans can be added."""

    programs: int = 0
    instructions: int = 0
    known: Counter[str] = field(default_factory=Counter)
    faults: Counter[int] = field(default_factory=Counter)
    """How the programs ended on the oracle, by vector; 3: well."""
    differences: list[tuple[int, Difference]] = field(default_factory=list)
    """With the program's number."""
    deaths: list[tuple[int, str]] = field(default_factory=list)
    """Programs on which the oracle's process died, and of what."""

    def add(self, other: "Findings") -> None:
        """Take in another span's."""
        self.programs += other.programs
        self.instructions += other.instructions
        self.known.update(other.known)
        self.faults.update(other.faults)
        self.differences += other.differences
        self.deaths += other.deaths


def run_span(
    seed: int, first: int, count: int, ours: Machine, oracle: Machine,
    families: Sequence[str] = (), bits: int | None = None,
    progress: Callable[[Findings], None] | None = None,
) -> Findings:  # fmt: skip
    """Run programs number `first` to `first + count` - 1 of `seed`, a batch at a time."""
    found = Findings()
    while count:
        size = min(count, MOST)
        batch = programs(seed, first, size, families, bits)
        found.add(_run_batch(batch, first, ours, oracle))
        first, count = first + size, count - size
        if progress is not None:
            progress(found)
    return found


def _run_batch(batch: list[Program], first: int, ours: Machine, oracle: Machine) -> Findings:
    memory = make_batch(batch)
    theirs = oracle.run(memory)
    mine = ours.run(memory)
    found = Findings(len(batch), sum(len(program.instructions) for program in batch))
    deaths = oracle.deaths if isinstance(oracle, HostMachine) else {}
    found.deaths = [(first + n, how) for n, how in deaths.items()]
    for n in range(len(batch)):
        found.faults[
            int.from_bytes(theirs[n * RECORD_BYTES + 4 : n * RECORD_BYTES + 8], "little")
        ] += 1
    for n in differing(mine, theirs, len(batch)):
        if n in deaths:
            continue
        verdict = compare(batch[n], state_of(mine, n), state_of(theirs, n))
        if isinstance(verdict, Difference):
            found.differences.append((first + n, verdict))
        else:
            found.known.update(verdict)
    return found


def state_of(records: bytes, number: int) -> State:
    """Return one record's state."""
    return State.unpack(records[number * RECORD_BYTES : (number + 1) * RECORD_BYTES])
