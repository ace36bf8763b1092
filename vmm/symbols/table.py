"""Symbols sorted by address: which one an address lies in, and where a name is."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

LAST_SIZE: Final = 1 << 16
"""How far behind the last symbol an address still counts as its, in bytes."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A name for an address; `size` in bytes, 0 where the image does not say."""

    name: str
    address: int
    size: int = 0
    is_code: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """An address inside a symbol."""

    symbol: str
    offset: int
    """Bytes behind the symbol's first."""
    is_code: bool = True

    def __str__(self) -> str:
        return f"{self.symbol}+{self.offset:#x}" if self.offset else self.symbol


@dataclass(frozen=True, slots=True)
class Alias:
    """`size` bytes that are linked at `virtual` also lie at `physical`, before paging is on."""

    physical: int
    virtual: int
    size: int


class SymbolTable:
    """All symbols of an image; of several at one address the first one given names it."""

    def __init__(self, symbols: Iterable[Symbol], aliases: Iterable[Alias] = ()) -> None:
        """Sort; the sort is stable."""
        self.symbols: Final = sorted(symbols, key=lambda symbol: symbol.address)
        self._aliases: Final = tuple(aliases)
        self._starts: Final = [symbol.address for symbol in self.symbols]
        self._by_name: Final = {symbol.name: symbol for symbol in reversed(self.symbols)}

    def __len__(self) -> int:
        """How many symbols there are."""
        return len(self.symbols)

    def find(self, name: str) -> int | None:
        """Return the address of `name`; of several with one name that of the lowest."""
        found = self._by_name.get(name)
        return None if found is None else found.address

    def linked(self, address: int) -> int:
        """Return where what lies at `address` is linked."""
        for alias in self._aliases:
            if 0 <= address - alias.physical < alias.size:
                return alias.virtual + address - alias.physical
        return address

    def at(self, address: int) -> Place | None:
        """Return the symbol that `address` lies in, also when it is a physical one."""
        found = self._direct(address)
        if found is None and (linked := self.linked(address)) != address:
            return self._direct(linked)
        return found

    def _direct(self, address: int) -> Place | None:
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        first = bisect_right(self._starts, self._starts[index] - 1)
        symbol = self.symbols[first]
        offset = address - symbol.address
        following = index + 1 < len(self.symbols)
        room = self.symbols[index + 1].address - symbol.address if following else LAST_SIZE
        if offset >= (symbol.size or room):
            return None
        return Place(symbol.name, offset, symbol.is_code)
