"""The referee: sees to it, at every exit, that both sides keep to the contract.

A breach names the rule, who broke it, the virtual CPU, its RIP and the cycle. It changes nothing:
what the other side gets is said by the rule itself, an error code for instance.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from vmm.pv.dialect import Processor

MOST: Final = 1000
"""So many breaches are kept, the first ones; all are counted."""


class Rule(Enum):
    """What may not happen, by whom."""

    INACTIVE_CALL = "guest", "a call of a feature that is not active"
    UNKNOWN_CALL = "guest", "a call with a number that nobody has"
    LATE_ACKNOWLEDGEMENT = "guest", "a revocation was not acknowledged in time"
    WRITES_SHARED = "guest", "a shared page does not hold what the hypervisor wrote there"
    CHANGED_BATCH = "guest", "a ring's shape was changed while a batch was carried out"
    ODD_VERSION = "host", "a shared page is in the middle of an update"
    TIME_BACKWARDS = "host", "the time page gives an earlier time than before"
    CONTRACT_PAGE = "host", "the contract page does not say what holds"
    WITHDRAWN = "host", "an active feature went without an acknowledgement"
    UNFRESH_GENERATION = "host", "a restored snapshot has the generation it had before"

    @property
    def side(self) -> str:
        """Who breaks it: "guest" or "host"."""
        return str(self.value[0])

    @property
    def text(self) -> str:
        """What may not happen."""
        return str(self.value[1])


@dataclass(frozen=True, slots=True)
class Breach:
    """One rule broken: by processor `cpu` at `rip` (for a rule of the host: when it exited)."""

    rule: Rule
    cpu: int
    rip: int
    cycle: int
    detail: str = ""

    def __str__(self) -> str:
        """Return one line for people."""
        detail = f" ({self.detail})" if self.detail else ""
        where = f"vCPU {self.cpu}, RIP {self.rip:#x}, cycle {self.cycle}"
        return f"{self.rule.side} broke {self.rule.name}: {self.rule.text}{detail}; {where}"


Check = Callable[[Processor], None]


class Referee:
    """Keeps the breaches, and asks the parts' checks at every exit."""

    def __init__(self, now: Callable[[], int]) -> None:
        """`now` reads the clock in cycles."""
        self._now: Final = now
        self.breaches: Final[list[Breach]] = []
        self.count = 0
        self.checks: Final[list[Check]] = []
        self.listeners: Final[list[Callable[[Breach], None]]] = []
        """Hear of every breach, once."""

    def report(self, rule: Rule, cpu: Processor, detail: str = "") -> None:
        """Somebody broke a rule."""
        breach = Breach(rule, cpu.index, cpu.rip(), self._now(), detail)
        self.count += 1
        if len(self.breaches) < MOST:
            self.breaches.append(breach)
        for listener in self.listeners:
            listener(breach)

    def look(self, cpu: Processor) -> None:
        """An exit: look at both sides."""
        for check in self.checks:
            check(cpu)
