"""Which features of the native dialect one run offers: `--dialect native,-timer,+quanta`."""

from dataclasses import dataclass
from typing import Final, Self

from vmm.errors import UsageError
from vmm.pv.native.abi import Feature


@dataclass(frozen=True, slots=True)
class Offer:
    """What one VM is offered; None: all that is built."""

    without: frozenset[Feature] = frozenset()

    @classmethod
    def of(cls, changes: tuple[str, ...]) -> Self:
        """Apply "-timer", "+timer", in order. Raises UsageError for an unknown name."""
        without: set[Feature] = set()
        for change in changes:
            on, name = change[0] == "+", change[1:]
            if name not in _BY_NAME:
                known = ", ".join(_BY_NAME)
                raise UsageError(f"--dialect {change!r}: native has no {name!r}; it has {known}")
            (without.discard if on else without.add)(_BY_NAME[name])
        return cls(frozenset(without))


_BY_NAME: Final = {feature.name.lower(): feature for feature in Feature}
