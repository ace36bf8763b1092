"""A hardware word: an int whose bits have names.

A layout is declared once, as class attributes; reading, building, changing and printing come from
it. A Word *is* the number the hardware sees, so it goes wherever an int goes. It costs about five
times a raw mask: right per VM-exit, wrong per memory access (that is C's business).

    class EptLeaf(Word):
        read = flag(0)
        memory_type = field(5, 3, MemoryType)
        frame = bits(51, 12)

    EptLeaf.of(read=1, frame=0x1234).replace(read=0).frame == 0x1234
"""

from collections.abc import Callable
from typing import Any, ClassVar, Generic, Self, TypeVar, overload

T = TypeVar("T", bound=int)


class Bits(Generic[T]):
    """Bits `high` to `low` of a Word, read as `kind` (an int, a bool or an enum)."""

    __slots__ = ("high", "kind", "low", "mask", "name")

    def __init__(self, high: int, low: int, kind: Callable[[int], T]) -> None:
        if not 0 <= low <= high:
            raise ValueError(f"bits {high}:{low} are not a range")
        self.high, self.low, self.kind = high, low, kind
        self.mask = (1 << high + 1) - (1 << low)
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, word: None, owner: type) -> Self: ...
    @overload
    def __get__(self, word: int, owner: type) -> T: ...
    def __get__(self, word: int | None, owner: type) -> Self | T:
        if word is None:
            return self
        return self.kind((int(word) & self.mask) >> self.low)

    def place(self, value: int) -> int:
        """`value` at its place in the word. Raises ValueError if it does not fit."""
        if not 0 <= value <= self.mask >> self.low:
            raise ValueError(f"{self.name}={value:#x} does not fit bits {self.high}:{self.low}")
        self.kind(value)  # an enum refuses what it does not name
        return value << self.low


def flag(bit: int) -> Bits[bool]:
    """One bit, read as a bool."""
    return Bits(bit, bit, bool)


def bits(high: int, low: int) -> Bits[int]:
    """Several bits, read as an int."""
    return Bits(high, low, int)


def field(high: int, low: int, kind: Callable[[int], T]) -> Bits[T]:
    """Several bits, read as an enum: what it does not name raises ValueError, read or written."""
    return Bits(high, low, kind)


class Word(int):
    """A hardware word. Subclasses declare its bits with `flag`, `bits` and `field`."""

    __slots__ = ()
    layout: ClassVar[dict[str, Bits[Any]]] = {}

    def __init_subclass__(cls) -> None:
        own = {name: part for name, part in vars(cls).items() if isinstance(part, Bits)}
        cls.layout = cls.layout | own
        taken = 0
        for part in cls.layout.values():
            if taken & part.mask:
                raise TypeError(f"{cls.__name__}.{part.name} overlaps another field")
            taken |= part.mask

    @classmethod
    def of(cls, **values: int) -> Self:
        """The word with these fields set and all else 0.

        Raises TypeError for a name that the word has not, ValueError for a value that does not fit.
        """
        return cls(0).replace(**values)

    @classmethod
    def defined(cls) -> int:
        """The mask of all bits that have a name."""
        return sum(part.mask for part in cls.layout.values())

    def replace(self, **values: int) -> Self:
        """The word with these fields changed. Raises as `of` does."""
        raw = int(self)
        for name, value in values.items():
            part = self.layout.get(name)
            if part is None:
                raise TypeError(f"{type(self).__name__} has no field {name!r}")
            raw = raw & ~part.mask | part.place(value)
        return type(self)(raw)

    def __repr__(self) -> str:
        raw, shown = int(self), [f"{int(self):#x}"]
        for name, part in self.layout.items():
            if value := (raw & part.mask) >> part.low:
                shown.append(name if part.high == part.low else f"{name}={_text(part, value)}")
        if unnamed := raw & ~self.defined():
            shown.append(f"unnamed={unnamed:#x}")
        return f"{type(self).__name__}({' '.join(shown)})"


def _text(part: Bits[Any], value: int) -> str:
    """A field's value as its enum names it, else in hexadecimal (also what the enum refuses)."""
    try:
        return str(getattr(part.kind(value), "name", f"{value:#x}"))
    except ValueError:
        return f"{value:#x}"
