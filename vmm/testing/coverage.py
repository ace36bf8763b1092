"""Exit coverage: which exit reasons, classes of qualifications and modes a run has reached.

A class is a qualification without the numbers in it. `UNIVERSE` lists the classes of every reason
that this processor model can show ("Basic VM-Exit Information"); what cannot come is named in
`ABSENT` with the reason.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from hwmodel.arch.exits import ExitReason as R
from hwmodel.cpu.unicorn import ffi, lib

MODES: Final = {1: "real", 2: "v8086", 3: "protected", 4: "compat", 5: "long"}
_ROOM: Final = 4096
_FAULT, _SOFTWARE, _PRIVILEGED, _NMI = 3 << 8, 6 << 8, 5 << 8, 2 << 8

MASKS: Final[dict[R, int]] = {
    R.EXCEPTION_NMI: 0x7FF, R.TASK_SWITCH: 3 << 30, R.CR_ACCESS: 0x7F, R.DR_ACCESS: 0x17,
    R.IO_INSTRUCTION: 0x7F, R.EPT_VIOLATION: 0x187, R.APIC_ACCESS: 0xF000, R.INVALID_STATE: 7,
}  # fmt: skip
"""Bits that tell classes apart; of EXCEPTION_NMI those of the interruption information."""

# #AC is not among them: the core does not check alignment (docs/ORACLES.md).
_EXCEPTIONS: Final = {
    **{_FAULT | v: f"vector {v}" for v in (0, 1, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16)},
    _SOFTWARE | 3: "INT3", _SOFTWARE | 4: "INTO", _PRIVILEGED | 1: "INT1", _NMI | 2: "NMI",
}  # fmt: skip
_CR: Final = {
    **{cr: f"MOV to CR{cr}" for cr in (0, 3, 4, 8)},
    **{0x10 | cr: f"MOV from CR{cr}" for cr in (3, 8)},
    0x20: "CLTS", 0x30: "LMSW register", 0x70: "LMSW memory",
}  # fmt: skip
_DR: Final = {
    way << 4 | dr: f"MOV {'from' if way else 'to'} DR{dr}"
    for way in (0, 1) for dr in (0, 1, 2, 3, 6, 7)
}  # fmt: skip
_IO: Final = {
    size - 1 | into << 3 | how: f"{'IN' if into else 'OUT'}{text} {size}"
    for size in (1, 2, 4)
    for into in (0, 1)
    for how, text in ((0, " DX"), (0x40, " imm"), (0x10, "S"), (0x30, "S REP"))
}

CLASSES: Final[dict[R, dict[int, str]]] = {
    R.EXCEPTION_NMI: _EXCEPTIONS,
    R.TASK_SWITCH: {0: "CALL", 1 << 30: "IRET", 2 << 30: "JMP", 3 << 30: "gate"},
    R.CR_ACCESS: _CR,
    R.DR_ACCESS: _DR,
    R.IO_INSTRUCTION: _IO,
    R.EPT_VIOLATION: {
        0x181: "read", 0x182: "write", 0x184: "fetch", 0x081: "read of a paging structure",
        0x083: "read of a paging structure that counts as a write",  # the EPT has A/D flags
    },
    R.APIC_ACCESS: {0: "read", 0x1000: "write", 0x2000: "fetch", 0x3000: "event delivery"},
    R.INVALID_STATE: {0: "state", 2: "PDPTE", 3: "NMI", 4: "link pointer"},
}  # fmt: skip

ABSENT: Final[dict[R, str]] = {
    **dict.fromkeys((R.IO_SMI, R.OTHER_SMI, R.RSM), "no system-management mode"),
    R.SIPI_SIGNAL: "no wait-for-SIPI activity state is offered",
    R.GETSEC: "no SMX", R.XSETBV: "no XSAVE", R.MCE_DURING_VMENTRY: "no machine checks",
    **dict.fromkeys((R.ENCLS, R.ENCLV), "no SGX"), R.PCONFIG: "no PCONFIG",
    **dict.fromkeys((R.XSAVES, R.XRSTORS), "no XSAVES"), R.SPP_EVENT: "no sub-page permissions",
    **dict.fromkeys((R.UMWAIT, R.TPAUSE), "no WAITPKG"), R.LOADIWKEY: "no key locker",
    **dict.fromkeys((R.ENQCMD_PASID_FAILURE, R.ENQCMDS_PASID_FAILURE), "no ENQCMD"),
    R.BUS_LOCK: "no bus-lock detection", R.NOTIFY: "no instruction timeout",
    **dict.fromkeys((R.SEAMCALL, R.TDCALL), "no SEAM"),
    **dict.fromkeys((R.RDMSRLIST, R.WRMSRLIST), "no MSR lists"),
    **dict.fromkeys((R.URDMSR, R.UWRMSR), "no USER_MSR"),
    **dict.fromkeys((R.MSR_READ_IMM, R.MSR_WRITE_IMM), "no RDMSR with an immediate"),
}  # fmt: skip

UNIVERSE: Final = tuple(
    (int(reason), value)
    for reason in R
    if reason not in ABSENT
    for value in CLASSES.get(reason, {0: ""})
)

Reached = set[tuple[int, int, int]]
"""Reason, class, mode."""


def start() -> None:
    """Begin to count, in this process, afresh."""
    masks = ffi.new("uint64_t[]", lib.REASONS)
    for reason, mask in MASKS.items():
        masks[reason] = mask
    lib.exit_coverage_start(masks)


def reached() -> Reached:
    """Return what was reached since `start`."""
    keys = ffi.new("uint64_t[]", _ROOM)
    count = lib.exit_coverage(keys, _ROOM)
    return {(key >> 4 & 0xFFF, key >> 16, key & 15) for key in keys[0:count]}


def share_of(found: Iterable[tuple[int, int, int]]) -> float:
    """Return how many percent of the classes that can be reached were."""
    seen = {(reason, value) for reason, value, _ in found}
    return 100 * len(seen & set(UNIVERSE)) / len(UNIVERSE)


def table(found: Reached, least: float | None = None) -> Iterator[str]:
    """Yield the table: a line for each reason, then what is missing, then the sum."""
    missing: list[str] = []
    for reason in R:
        if reason in ABSENT:
            continue
        classes = CLASSES.get(reason, {0: ""})
        seen = {value for number, value, _ in found if number == reason}
        modes = sorted({mode for number, _, mode in found if number == reason})
        shown = " ".join(MODES.get(mode, "?") for mode in modes) or "-"
        count = len(seen & set(classes))
        yield f"{reason.name:<22} {count:>3} of {len(classes):>3}  {shown}"
        missing += [f"{reason.name} {text}".strip() for v, text in classes.items() if v not in seen]
    if missing:
        yield f"missing: {', '.join(missing)}"
    share = share_of(found)
    reasons = {reason for reason, _ in UNIVERSE}
    hit = len({reason for reason, _, _ in found} & reasons)
    yield f"{hit} of {len(reasons)} reasons, {share:.1f} % of {len(UNIVERSE)} classes"
    if least and share < least:
        yield f"below the {least:g} % that --exit-coverage asks for"
