"""Which features of KVM's dialect there are, and which one run offers."""

from dataclasses import dataclass
from typing import Final, Self

from vmm.errors import UsageError
from vmm.pv.kvm.abi import Feature, Hint

BUILT: Final = frozenset(
    {
        Feature.CLOCKSOURCE,
        Feature.NOP_IO_DELAY,
        Feature.CLOCKSOURCE2,
        Feature.ASYNC_PF,
        Feature.STEAL_TIME,
        Feature.PV_EOI,
        Feature.PV_UNHALT,
        Feature.PV_TLB_FLUSH,
        Feature.PV_SEND_IPI,
        Feature.POLL_CONTROL,
        Feature.PV_SCHED_YIELD,
        Feature.ASYNC_PF_INT,
        Feature.CLOCKSOURCE_STABLE_BIT,
    }
)
"""What is offered unless it is switched off."""
_NEEDS: Final = {Feature.ASYNC_PF_INT: Feature.ASYNC_PF}
"""What makes no sense alone: Linux looks at the first and then uses the second's registers too."""
_BY_NAME: Final = {feature.name.lower(): feature for feature in sorted(BUILT)}
_HINTS: Final = {hint.name.lower(): hint for hint in Hint}


@dataclass(frozen=True, slots=True)
class Offer:
    """What one VM is offered."""

    features: frozenset[Feature] = BUILT
    hints: frozenset[Hint] = frozenset()

    @classmethod
    def of(cls, changes: tuple[str, ...]) -> Self:
        """Apply "-steal_time" and "+realtime", in order. Raises UsageError for an unknown name."""
        features, hints = set(BUILT), set[Hint]()
        for change in changes:
            on, name = change[0] == "+", change[1:]
            if name in _BY_NAME:
                (features.add if on else features.discard)(_BY_NAME[name])
            elif name in _HINTS:
                (hints.add if on else hints.discard)(_HINTS[name])
            else:
                known = ", ".join([*_BY_NAME, *_HINTS])
                raise UsageError(f"--dialect {change!r}: kvm has no {name!r}; it has {known}")
        features -= {feature for feature, needed in _NEEDS.items() if needed not in features}
        return cls(frozenset(features), frozenset(hints))

    def __contains__(self, feature: Feature) -> bool:
        return feature in self.features

    def feature_word(self) -> int:
        """Return EAX of leaf +1."""
        return sum(1 << feature for feature in self.features)

    def hint_word(self) -> int:
        """Return EDX of leaf +1."""
        return sum(1 << hint for hint in self.hints)
