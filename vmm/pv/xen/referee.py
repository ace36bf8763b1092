"""The referee of Xen's ABI: what a guest may not do, and where that is written.

The engine notes breaches of the rules of paging, pointers and frames (cext/xen_trap.c); lost events
and grants that went too early are found here and in `events` and `grants`. A breach changes
nothing: what the guest gets is said by the hypercall's error, a fault, or the end of the domain.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Final

from hwmodel.cpu.xen import Breach

SHOWN: Final = 5
KEPT: Final = 256


class Rule(Enum):
    """Number (enum xen_rule), what may not happen, the source; and what `address` and `value` are.

    Sources are Xen's public headers, or its sources where those say more.
    """

    PIN = (
        1, "a frame cannot be the page table that it is pinned or used as",
        "public/xen.h, MMUEXT_PIN_L1_TABLE", "frame", "level",
    )  # fmt: skip
    ENTRY = (
        2,
        "a page-table entry is refused",
        "public/xen.h, HYPERVISOR_mmu_update",
        "entry",
        "value",
    )
    ROOT = (
        3, "a root is loaded that is no L4 table", "public/xen.h, MMUEXT_NEW_BASEPTR", "frame",
        "of programs",
    )  # fmt: skip
    UNPIN = 4, "a frame is unpinned that was not", "public/xen.h, MMUEXT_UNPIN_TABLE", "frame", ""
    SEGMENTS = (
        5, "a descriptor or its table is refused", "public/xen.h, HYPERVISOR_update_descriptor",
        "place", "descriptor",
    )  # fmt: skip
    POINTER = (
        6, "a hypercall's pointer leads to nothing, or into the hypervisor's hole",
        "arch-x86/xen-x86_64.h, HYPERVISOR_VIRT_START", "pointer", "bytes",
    )  # fmt: skip
    FRAME = (
        7, "the frame of an iret cannot be read or loaded, or forges flags",
        "arch-x86/xen-x86_64.h, struct iret_context", "place", "flags, selector or crash",
    )  # fmt: skip
    TABLE_STORE = (
        8,
        "a store to a page table is refused",
        "xen/arch/x86/pv/ro-page-fault.c",
        "entry",
        "value",
    )
    BOUNCE = (
        9, "a trap's frame finds no stack or no handler", "public/xen.h, HYPERVISOR_stack_switch",
        "stack", "crash",
    )  # fmt: skip
    LOST_EVENT = (
        10, "a processor sleeps while an event is pending and not masked that no upcall tells of",
        "public/xen.h, struct shared_info", "word", "port",
    )  # fmt: skip
    STALE_GRANT = (
        11, "a grant is ended or changed, or its frame given back, while a back end has it",
        "public/grant_table.h, \"invalidating an unused grant\"", "entry or frame",
        "reference or frame",
    )  # fmt: skip
    BAD_GRANT = (
        12, "a back end is told of a grant that there is not, or not so",
        "public/grant_table.h, \"introducing a valid entry\"", "entry", "reference",
    )  # fmt: skip

    @property
    def number(self) -> int:
        """As in the engine's enum xen_rule."""
        return int(self.value[0])

    @property
    def text(self) -> str:
        """What may not happen."""
        return str(self.value[1])

    @property
    def source(self) -> str:
        """Where that is written."""
        return str(self.value[2])

    @property
    def names(self) -> tuple[str, str]:
        """What `address` and `value` of a breach are."""
        return str(self.value[3]), str(self.value[4])


RULES: Final = {rule.number: rule for rule in Rule}
Report = Callable[[Rule, int, int], None]
"""Takes a rule that was broken, the address and the value."""


def ignore(_rule: Rule, _address: int, _value: int) -> None:
    """Nobody looks."""


class Notebook:
    """The breaches of a guest that is no domain of the engine's; `place` tells RIP and cycle."""

    def __init__(self, place: Callable[[], tuple[int, int]]) -> None:
        """Nothing was broken yet."""
        self._place: Final = place
        self._kept: deque[Breach] = deque(maxlen=KEPT)
        self._count = 0

    def report(self, rule: Rule, address: int, value: int) -> None:
        """A rule was broken."""
        self._count += 1
        self._kept.append(Breach(rule.number, address, value, *self._place()))

    def breaches(self) -> list[Breach]:
        """Return the newest, oldest first."""
        return list(self._kept)

    def breach_count(self) -> int:
        """Return how many there were."""
        return self._count


def breach_line(breach: Breach) -> str:
    """Return one line for people."""
    rule = RULES[breach.rule]
    where, what = rule.names
    value = f", {what} {breach.value:#x}" if what else ""
    return (
        f"{rule.name}: {rule.text} ({where} {breach.address:#x}{value}); "
        f"RIP {breach.rip:#x}, cycle {breach.cycles}"
    )


def summary(breaches: Iterable[Breach], count: int) -> list[str]:
    """Return what is said of all breaches behind a run: by rule, the first of each in full.

    `count` is how many there were; the newest of them are in `breaches`.
    """
    kept = list(breaches)
    if not count:
        return []
    counts = Counter(breach.rule for breach in kept)
    older = f", of which the newest {len(kept)} are known" if len(kept) < count else ""
    lines = [f"the guest broke rules of Xen's ABI {count} times{older}"]
    firsts = {breach.rule: breach for breach in reversed(kept)}
    for number in sorted(counts)[:SHOWN]:
        lines.append(f"{counts[number]} x {breach_line(firsts[number])}")
        lines.append(f"    see {RULES[number].source}")
    if len(counts) > SHOWN:
        lines.append(f"and {len(counts) - SHOWN} more rules")
    return lines
