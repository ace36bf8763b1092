"""What one run offers of the native dialect: `--dialect native,-timer,+quantised`.

A feature's name takes it away ("-timer") or gives it back; an option's name sets how the hypervisor
behaves:

    quantised         what tells time moves in steps of `QUANTUM_NS`: hypercall and TSC; there is no
                      time page then, whose time would be as fine
    limited           READ_TIME answers `READS` times in `WINDOW_NS` on each processor
    constant_entropy  a hostile host: the entropy that it contributes is always the same
"""

from dataclasses import dataclass
from typing import Final, Self

from vmm.errors import UsageError
from vmm.pv.native.abi import Feature

OPTIONS: Final = ("quantised", "limited", "constant_entropy")
QUANTUM_NS: Final = 400_000_000
"""So long that what a guest learns of 800 turns of half a ms is their sum: 6 bits for 800."""
READS: Final = 100
WINDOW_NS: Final = 100_000_000
_BY_NAME: Final = {feature.name.lower(): feature for feature in Feature}


@dataclass(frozen=True, slots=True)
class Offer:
    """The features that are left out, of those that are built; the options that are set."""

    without: frozenset[Feature] = frozenset()
    options: frozenset[str] = frozenset()

    @classmethod
    def of(cls, changes: tuple[str, ...]) -> Self:
        """Apply "-timer", "+quantised", in order. Raises UsageError for an unknown name."""
        without, options = set[Feature](), set[str]()
        for change in changes:
            on, name = change[0] == "+", change[1:]
            if name in _BY_NAME:
                (without.discard if on else without.add)(_BY_NAME[name])
            elif name in OPTIONS:
                (options.add if on else options.discard)(name)
            else:
                known = ", ".join([*_BY_NAME, *OPTIONS])
                raise UsageError(f"--dialect {change!r}: native has no {name!r}; it has {known}")
        if "quantised" in options:
            without.add(Feature.TIME_PAGE)
        return cls(frozenset(without), frozenset(options))
