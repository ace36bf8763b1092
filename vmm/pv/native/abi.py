"""The native dialect's ABI in one table: numbers, errors, features, layouts; source: this file.

Guests get all of it by `make abi` as guest_kernel/abi/native.h and native_calls.h; nothing is
written down twice. What each thing means is told in docs/NATIVE.md.

A hypercall is VMCALL (VMMCALL on AMD): number in RAX, arguments in RBX, RCX, RDX, RSI, RDI, R8,
result in RAX: zero or more, or the negative of an `Error`.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from vmm.pv.layout import Layout, Member

SIGNATURE: Final = b"ring1native\0"
"""EBX, ECX, EDX of the first leaf."""
VERSION: Final = 1
LAST_LEAF: Final = 3
TAG: Final = 0x5231_0000
"""The upper half of every hypercall number ("R1"): other dialects' numbers are elsewhere."""
HYPERCALL_PAGE_MSR: Final = 0x5231_0000
"""Write a page's guest-physical address: the hypervisor fills it with an entry of `ENTRY_BYTES`
for every call (MOV EAX, number; VMCALL; RET). Reads what was written."""
ENTRY_BYTES: Final = 16
NOWHERE: Final = (1 << 64) - 1
"""The address that takes a shared page back."""
FOREVER: Final = (1 << 64) - 1
"""A time that never comes; a target that is nobody in particular."""


class Feature(IntEnum):
    """Bits of EBX in leaf +1 (offered), and of the masks in the contract page."""

    MULTICALL = 0
    MMU_BATCH = 1
    LAZY_CR3 = 2
    TIME_PAGE = 3
    TIMER = 4
    TIMER_SLACK = 5
    YIELD = 6
    WAIT_WAKE = 7
    PREEMPTION_NOTICE = 8
    HOLDER_BOOST = 9
    STEAL_TIME = 10
    PRESSURE = 11
    BALLOON = 12
    NUMA = 13
    ENTROPY = 14
    RING = 15
    READ_TIME = 16


class FeatureState(IntEnum):
    """Where a feature's contract stands; what CONTRACT_STATE returns."""

    NOT_OFFERED = 0
    OFFERED = 1
    ACCEPTED = 2
    ACTIVE = 3
    REVOKING = 4
    """Still works: the guest was told, and has not acknowledged yet."""
    REVOKED = 5


class Error(IntEnum):
    """What a hypercall returns, negated."""

    NO_CALL = 1
    NOT_ALLOWED = 2
    """Not from ring 0."""
    BAD_ARGUMENT = 3
    BAD_ADDRESS = 4
    """Not RAM, or not all of it."""
    MISALIGNED = 5
    OVERLAP = 6
    """With another page or ring that is shared."""
    NOT_OFFERED = 7
    NOT_ACTIVE = 8
    BAD_VERSION = 9
    BAD_STATE = 10
    """The contract of the feature does not stand where that is possible."""
    CHANGED = 11
    """The value is another, the batch was changed while it was carried out."""
    TIMED_OUT = 12
    LIMIT = 13
    """Too many, too often: the rate limit, or a bounded table that is full."""
    NESTED = 14
    """Not inside a multicall."""
    INTERRUPTED = 15


class Call(IntEnum):
    """The numbers, without `TAG`."""

    NOP = 0
    CONTRACT_ACCEPT = 1
    CONTRACT_ACTIVATE = 2
    CONTRACT_ACKNOWLEDGE = 3
    CONTRACT_STATE = 4
    SET_PAGE = 5
    SET_VECTOR = 6
    MULTICALL = 8
    MMU_UPDATE = 9
    SET_CR3 = 10
    FLUSH = 11
    SET_TIMER = 16
    ACK_INTERRUPT = 17
    READ_TIME = 18
    YIELD = 24
    WAIT_ON_VALUE = 25
    WAKE = 26
    CHECK_THEN_SLEEP = 27
    """The deliberately broken one: sleeps whatever the value became meanwhile."""
    BALLOON_GIVE = 32
    BALLOON_TAKE = 33
    NUMA_HINT = 34
    ENTROPY = 40
    RING_SETUP = 48
    RING_KICK = 49


class PageKind(IntEnum):
    """What SET_PAGE registers: `PAGES` says its layout, its feature, and whose it is."""

    CONTRACT = 0
    TIME = 1
    PREEMPTION = 2
    STEAL = 3
    PRESSURE = 4


class Notice(IntEnum):
    """What SET_VECTOR gives an interrupt vector to; one each for the whole VM."""

    REVOCATION = 0
    PRESSURE = 1
    GENERATION = 2


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument; one with `size` is the guest-physical address of so many bytes of RAM."""

    name: str
    size: int = 0
    align: int = 1


@dataclass(frozen=True, slots=True)
class CallRow:
    """One hypercall: the feature it belongs to (None: always there), its arguments, its result."""

    feature: Feature | None
    words: str
    arguments: tuple[Argument, ...] = ()
    alone: bool = False
    """Not an entry of a multicall."""


_A = Argument
CALLS: Final[dict[Call, CallRow]] = {
    Call.NOP: CallRow(None, "Nothing; returns 0."),
    Call.CONTRACT_ACCEPT: CallRow(
        None, "Accept a feature in a version.", (_A("feature"), _A("version"))
    ),
    Call.CONTRACT_ACTIVATE: CallRow(
        None, "Let every feature in the mask, all accepted, begin to work.", (_A("mask"),)
    ),
    Call.CONTRACT_ACKNOWLEDGE: CallRow(
        None, "Let a feature go that is being revoked.", (_A("feature"),)
    ),
    Call.CONTRACT_STATE: CallRow(None, "Returns the feature's state.", (_A("feature"),)),
    Call.SET_PAGE: CallRow(
        None, "Share a page of a kind, or take it back (NOWHERE).", (_A("kind"), _A("gpa"))
    ),
    Call.SET_VECTOR: CallRow(
        None, "Be interrupted by vector for a notice; 0: not.", (_A("notice"), _A("vector"))
    ),
    Call.MULTICALL: CallRow(
        Feature.MULTICALL,
        "Carry out what stands in a ring; returns how many entries were consumed.",
        (_A("ring", 64, 64),), alone=True,
    ),
    Call.MMU_UPDATE: CallRow(
        Feature.MMU_BATCH,
        "Store a page-table entry, and drop the translation of address (NOWHERE: of none).",
        (_A("entry_gpa", 8, 8), _A("value"), _A("address")),
    ),
    Call.SET_CR3: CallRow(Feature.LAZY_CR3, "Load CR3.", (_A("value"),)),
    Call.FLUSH: CallRow(
        Feature.MMU_BATCH, "Drop the translation of a linear address; NOWHERE: all.",
        (_A("address"),),
    ),
    Call.SET_TIMER: CallRow(
        Feature.TIMER,
        "Interrupt this processor by vector at deadline_ns, at most slack_ns later; FOREVER: not.",
        (_A("deadline_ns"), _A("slack_ns"), _A("vector")),
    ),
    Call.ACK_INTERRUPT: CallRow(
        Feature.TIMER, "End the interrupt in service.", (_A("vector"),)
    ),
    Call.READ_TIME: CallRow(
        Feature.READ_TIME, "Returns ns, quantised and limited in rate where that is asked for."
    ),
    Call.YIELD: CallRow(
        Feature.YIELD, "End the turn, in favour of processor target; FOREVER: of anyone.",
        (_A("target"),), alone=True,
    ),
    Call.WAIT_ON_VALUE: CallRow(
        Feature.WAIT_WAKE,
        "Sleep only if the 32-bit word at gpa still holds value, until WAKE or timeout_ns.",
        (_A("gpa", 4, 4), _A("value"), _A("timeout_ns")), alone=True,
    ),
    Call.WAKE: CallRow(
        Feature.WAIT_WAKE, "Wake at most count that wait at gpa; returns how many.",
        (_A("gpa", 4, 4), _A("count")),
    ),
    Call.CHECK_THEN_SLEEP: CallRow(
        Feature.WAIT_WAKE, "Sleep until WAKE without looking at the value: broken on purpose.",
        (_A("gpa", 4, 4), _A("timeout_ns")), alone=True,
    ),
    Call.BALLOON_GIVE: CallRow(
        Feature.BALLOON, "Give a page away: its contents are gone.", (_A("page", 4096, 4096),)
    ),
    Call.BALLOON_TAKE: CallRow(
        Feature.BALLOON, "Take a page back that was given.", (_A("page", 4096, 4096),)
    ),
    Call.NUMA_HINT: CallRow(
        Feature.NUMA, "These processors (a mask) work with pages of 4 KiB from gpa on.",
        (_A("processors"), _A("gpa"), _A("pages")),
    ),
    Call.ENTROPY: CallRow(
        Feature.ENTROPY, "Write 32 fresh bytes for the guest to mix with its own.",
        (_A("gpa", 32, 8),),
    ),
    Call.RING_SETUP: CallRow(
        Feature.RING, "Share an I/O ring of 2^order descriptors with a device.",
        (_A("device"), _A("gpa"), _A("order"), _A("vector")),
    ),
    Call.RING_KICK: CallRow(
        Feature.RING, "Carry out the new descriptors; returns how many.", (_A("device"),)
    ),
}  # fmt: skip

CONTRACT_PAGE: Final = Layout("contract", 128, 64, (
    Member("version", "u32", "odd while it is being written"),
    Member("abi", "u32", "VERSION"),
    Member("accepted", "u64", "mask of features, as all below"),
    Member("active", "u64", "these work, those being revoked too"),
    Member("revoking", "u64", "acknowledge these"),
    Member("revoked", "u64", "these are gone, until they are offered again"),
    Member("generation", "u64", "another one after each restored snapshot: mix your entropy"),
    Member("feature_version", "u8", "the version accepted, by feature", 64),
))  # fmt: skip
TIME_PAGE: Final = Layout("time", 64, 64, (
    Member("version", "u32", "odd while it is being written"),
    Member("flags", "u32", "TIME_STABLE: no processor's page gives an earlier time"),
    Member("tsc", "u64", "the TSC at ns"),
    Member("ns", "u64", "time since power-on"),
    Member("mul", "u32", "2^32 times ns per tick shifted"),
    Member("shift", "i8", "of the ticks to the left before the multiplication"),
))  # fmt: skip
TIME_STABLE: Final = 1
PREEMPTION_PAGE: Final = Layout("preemption", 64, 64, (
    Member("version", "u32", "odd while the hypervisor writes its part"),
    Member("preempted", "u32", "1 while another processor has this one's turn"),
    Member("preemptions", "u64", "how often the turn was taken away"),
    Member("boosts", "u64", "how often it ran on because it held a lock"),
    Member("holding", "u32", "the guest's: how many locks this processor holds now"),
    Member("yields", "u32", "the guest's: set by the hypervisor when the boost ends, yield soon"),
))  # fmt: skip
STEAL_PAGE: Final = Layout("steal", 64, 64, (
    Member("version", "u32", "odd while it is being written"),
    Member("flags", "u32", "none yet"),
    Member("stolen_ns", "u64", "it could have run and did not"),
    Member("ran_ns", "u64", "it ran"),
))  # fmt: skip
PRESSURE_PAGE: Final = Layout("pressure", 64, 64, (
    Member("version", "u32", "odd while it is being written"),
    Member("pressure", "u32", "0 none to PRESSURE_FULL: how much the host lacks memory"),
    Member("target_pages", "u32", "how many pages the balloon should hold"),
    Member("given_pages", "u32", "how many it holds"),
))  # fmt: skip
PRESSURE_FULL: Final = 1 << 16
MULTICALL_RING: Final = Layout("multicall_ring", 64, 64, (
    Member("entries", "u32", "a power of two up to MULTICALL_MOST; entries follow the header"),
    Member("flags", "u32", "MULTICALL_STOP: stop behind the first that fails"),
    Member("head", "u32", "the hypervisor's: counts consumed entries, freely running"),
    Member("tail", "u32", "the guest's: counts filled entries, freely running"),
    Member("failed", "u32", "the hypervisor's: how many of the last batch failed"),
    Member("first_failed", "u32", "the hypervisor's: head's value at the first that failed"),
))  # fmt: skip
MULTICALL_ENTRY: Final = Layout("multicall_entry", 64, 64, (
    Member("number", "u64", "with TAG"),
    Member("arguments", "u64", "as in the registers", 6),
    Member("result", "i64", "the hypervisor's"),
))  # fmt: skip
RING: Final = Layout("ring", 64, 64, (
    Member("tail", "u32", "the guest's: counts filled descriptors, freely running"),
    Member("flags", "u32", "the guest's: RING_QUIET, no interrupt"),
    Member("head", "u32", "the device's: counts completed descriptors, freely running"),
    Member("size", "u32", "the device's: how many descriptors follow the header"),
))  # fmt: skip
DESCRIPTOR: Final = Layout("descriptor", 32, 32, (
    Member("gpa", "u64", "the buffer"),
    Member("offset", "u64", "where on the device"),
    Member("length", "u32", "of the buffer, in bytes"),
    Member("flags", "u32", "RING_IN: the device fills the buffer; else it takes it"),
    Member("status", "i32", "the device's: 0, or a negative error"),
    Member("moved", "u32", "the device's: bytes"),
))  # fmt: skip
RING_QUIET: Final = 1
RING_IN: Final = 1
RING_ORDER_MOST: Final = 8
RING_LENGTH_MOST: Final = 1 << 16
"""Of one buffer, in bytes."""
STORE_BYTES: Final = 1 << 20


class RingDevice(IntEnum):
    """What stands behind a ring."""

    CONSOLE = 0
    """Takes characters."""
    STORE = 1
    """`STORE_BYTES` that can be written and read; empty at power-on."""


MULTICALL_MOST: Final = 1024
MULTICALL_STOP: Final = 1
LAYOUTS: Final = (
    CONTRACT_PAGE, TIME_PAGE, PREEMPTION_PAGE, STEAL_PAGE, PRESSURE_PAGE, MULTICALL_RING,
    MULTICALL_ENTRY, RING, DESCRIPTOR,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PageRow:
    """A shared page: its layout, its feature (None: always), and whether each vCPU has one."""

    layout: Layout
    feature: Feature | None
    per_cpu: bool


PAGES: Final[dict[PageKind, PageRow]] = {
    PageKind.CONTRACT: PageRow(CONTRACT_PAGE, None, per_cpu=False),
    PageKind.TIME: PageRow(TIME_PAGE, Feature.TIME_PAGE, per_cpu=True),
    PageKind.PREEMPTION: PageRow(PREEMPTION_PAGE, Feature.PREEMPTION_NOTICE, per_cpu=True),
    PageKind.STEAL: PageRow(STEAL_PAGE, Feature.STEAL_TIME, per_cpu=True),
    PageKind.PRESSURE: PageRow(PRESSURE_PAGE, Feature.PRESSURE, per_cpu=False),
}
VERSIONS: Final[dict[Feature, tuple[int, int]]] = dict.fromkeys(Feature, (1, 1))
"""The oldest and newest version of each feature that the hypervisor speaks."""
CONSTANTS: Final[dict[str, int]] = {
    "VERSION": VERSION, "TAG": TAG, "HYPERCALL_PAGE_MSR": HYPERCALL_PAGE_MSR,
    "ENTRY_BYTES": ENTRY_BYTES, "NOWHERE": NOWHERE, "FOREVER": FOREVER,
    "TIME_STABLE": TIME_STABLE, "PRESSURE_FULL": PRESSURE_FULL,
    "RING_QUIET": RING_QUIET, "RING_IN": RING_IN, "RING_ORDER_MOST": RING_ORDER_MOST,
    "RING_LENGTH_MOST": RING_LENGTH_MOST, "STORE_BYTES": STORE_BYTES,
    "MULTICALL_MOST": MULTICALL_MOST, "MULTICALL_STOP": MULTICALL_STOP,
}  # fmt: skip
