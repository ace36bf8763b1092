"""What events cost on a CPU model, in core cycles: the tables [costs], [handlers] and [references].

The processor's own part is measured per processor; handlers are software, so theirs say whose.
"""

from dataclasses import dataclass

from hwmodel.arch.exits import ExitReason
from hwmodel.arch.operations import Operation
from hwmodel.arch.sourced import SourcedTable

_BY_NAME = {code.name: int(code) for code in (*ExitReason, *Operation)}
_CODES = 256
"""Exit reasons, and behind them operations."""


@dataclass(frozen=True, slots=True)
class References:
    """What a reference of a page walk takes, by where the line is found; what a hit saves."""

    level1: int
    level2: int
    level3: int
    memory: int
    structure_hit: int
    nested_hit: int
    tlb_level2_hit: int

    @classmethod
    def read(cls, table: SourcedTable) -> "References":
        """Take [references] out of a model's file. Raises ModelError."""
        found = cls(**{name: _cycles(table, name) for name in cls.__slots__})
        table.done()
        return found


@dataclass(frozen=True, slots=True)
class EventCosts:
    """Costs in cycles; `handlers` by exit reason or operation, without their VMCS accesses."""

    vm_exit: int
    vm_entry: int
    vmread: int
    vmwrite: int
    vmreads_per_exit: int
    """How many a handler makes."""
    vmwrites_per_exit: int
    exception: int
    """Delivery of a fault through the IDT."""
    interrupt: int
    """Delivery of an interrupt or of INT n."""
    far_device: int
    """A device that is modelled in user space, beside its handler."""
    syscall: int
    """SYSCALL, beyond what the block table has for it; likewise SYSRET and a write of CR8."""
    sysret: int
    write_cr8: int
    mispredict: int
    """A branch that was guessed wrong (`--timing detailed`)."""
    port: int
    """IN or OUT on bare metal, to a device behind the south bridge."""
    handlers: tuple[int, ...]
    references: References

    @classmethod
    def read(cls, file: SourcedTable) -> "EventCosts":
        """Take the three tables out of a model's file. Raises ModelError."""
        costs = file.section("costs")
        plain = [name for name in cls.__slots__ if name not in ("handlers", "references")]
        values = {name: _cycles(costs, name) for name in plain}
        costs.done()
        handlers = _handlers(file.section("handlers"))
        return cls(
            **values, handlers=handlers, references=References.read(file.section("references"))
        )

    def handler(self, reason: int) -> int:
        """What software does about an exit, with its accesses to the VMCS."""
        accesses = self.vmreads_per_exit * self.vmread + self.vmwrites_per_exit * self.vmwrite
        return self.handlers[reason] + accesses

    @property
    def round_trip(self) -> int:
        """An exit and an entry, the hardware's part."""
        return self.vm_exit + self.vm_entry


def _cycles(table: SourcedTable, name: str) -> int:
    value = table.number(name)
    if not 0 <= value < 1 << 32:
        raise table.error(name, f"{value} is no number of cycles from 0 to 4294967295")
    return value


def _handlers(table: SourcedTable) -> tuple[int, ...]:
    """By exit reason or operation; `default` is for those that have no row."""
    costs = [_cycles(table, "default")] * _CODES
    for name in list(table.table):
        if name not in _BY_NAME:
            raise table.error(name, "is no exit reason")
        costs[_BY_NAME[name]] = _cycles(table, name)
    return tuple(costs)
