"""How fast an engine's clock goes, and how far it may: cost tables, a limit of instructions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from hwmodel.cpu.unicorn import ffi, lib

_NEVER: Final = (1 << 64) - 1


def cost_tables() -> list[str]:
    """Return the names of the tables that `Pace.set_costs` knows."""
    names: list[str] = []
    while (name := lib.cost_table_name(len(names))) != ffi.NULL:
        names.append(ffi.string(name).decode())
    return names


def block_cycles(table: str, code: bytes, lengths: Sequence[int], bits: int = 64) -> float:
    """What the instructions of `code`, so many bytes each, cost in a row, in cycles."""
    units = lib.cost_of_block(table.encode(), code, bytes(lengths), len(lengths), bits)
    return float(units) / 64


@dataclass(frozen=True, slots=True)
class UnknownCost:
    """A form that no table prices: an instruction of it, and how many blocks have one."""

    code: bytes
    bits: int
    blocks: int


class Pace:
    """One engine's. Instructions are counted with the events delivered."""

    __slots__ = ("_engine", "_most")

    def __init__(self, engine: Any) -> None:
        """Start without a limit, and with a cycle an instruction."""
        self._engine: Final = engine
        self._most = _NEVER

    def set_costs(self, table: str | None) -> None:
        """Price instructions by this table, None: a cycle each. Call it before the first entry.

        Raises ValueError if there is no such table.
        """
        name = ffi.NULL if table is None else table.encode()
        if lib.engine_set_costs(self._engine, name):
            raise ValueError(f"no cost table {table!r}; there are: {', '.join(cost_tables())}")

    def unknown_costs(self) -> list[UnknownCost]:
        """Instructions without a row in the cost table, which took the default; by form."""
        cells = ffi.new("struct unknown_cost[]", lib.UNKNOWN_COSTS)
        count = lib.engine_unknown_costs(self._engine, cells)
        return [UnknownCost(bytes(u.code)[: u.length], u.bits, u.blocks) for u in cells[0:count]]

    def passed(self) -> int:
        """Instructions retired and events delivered."""
        delivered: int = lib.engine_counters(self._engine).delivered
        return delivered + int(lib.engine_instructions(self._engine))

    def limit(self, most: int | None) -> None:
        """Stop when so many have passed; None: never."""
        self._most = _NEVER if most is None else most
        lib.engine_limit_instructions(self._engine, self._most)

    def is_used_up(self) -> bool:
        """Whether the limit forbids another instruction."""
        return self.passed() >= self._most

    @contextmanager
    def one_instruction(self, completed: int) -> Iterator[None]:
        """Let one pass and stop; `completed` by software are still to be booked."""
        behind = self.passed() + completed + 1
        lib.engine_limit_instructions(self._engine, min(behind, self._most))
        yield
        lib.engine_limit_instructions(self._engine, self._most)
