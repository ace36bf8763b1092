"""A difference as a TOML case: what the oracle did is what is expected."""

from typing import Any, Final

from hwmodel.vmx.state import GPR_NAMES
from vmm.testing.cases.case import FLAGS
from vmm.testing.cases.write import case_text
from vmm.testing.failure import disassemble
from vmm.testing.fuzz.compare import Difference
from vmm.testing.fuzz.record import BREAKPOINT, DATA, PAGE_FAULT, WINDOW_BYTES, WINDOWS, State

_CODE_AT: Final = 0x210000
_DATA_AT: Final = 0x200000
_PAGES: Final = (
    f"{DATA:#x}+0x2000 -> {_DATA_AT:#x} rwu", f"{DATA + 0x2000:#x} -> {_DATA_AT + 0x2000:#x} ru",
    f"{DATA + 0x3000:#x} none", f"{DATA + 0x4000:#x} -> {_DATA_AT + 0x4000:#x} rwu",
)  # fmt: skip
_XMM: Final = 160


def case_of_difference(difference: Difference, name: str) -> str:
    """Return a [[case]] that passes where ring1 does what the oracle did.

    x87 and MXCSR have no place in a case: a comment says what they were.
    """
    start, theirs, code = difference.program.start, difference.theirs, difference.program.code
    page = start.rip & ~0xFFF
    table: dict[str, Any] = {
        "name": name,
        "mode": "long64" if start.bits == 64 else "compat32",
        "ring": 3,
        "pages": [*_PAGES, f"{page:#x}+0x2000 -> {_CODE_AT:#x} rxu"],
        "bytes": b"\xf4",
        "registers": _registers(start) | {"rip": start.rip, "rflags": start.rflags & ~0x200},
        "memory": {_CODE_AT + start.rip - page: code + b"\xcc"} | _windows(start),
        "techniques": ["vtx"],
    }
    mask = start.end_mask if theirs.vector == BREAKPOINT else start.fault_mask
    rip = theirs.rip + (theirs.vector == BREAKPOINT)
    fault: dict[str, Any] = {"vector": theirs.vector, "rip": rip}
    if theirs.vector == PAGE_FAULT:
        fault |= {"error": theirs.error, "address": theirs.address}
    expect = {
        "registers": _registers(theirs, zeros=True),
        "flags": {
            name: theirs.rflags >> bit & 1
            for name, bit in FLAGS.items()
            if mask >> bit & 1 and name not in ("rf", "id")
        },
        "memory": _windows(theirs),
        "fault": fault,
    }
    remarks = [f"# {line}" for line in disassemble(code, start.rip, start.bits)]
    remarks += [f"# differs (ring1, oracle): {line}" for line in difference.lines()]
    remarks.append(f"# x87 and MXCSR at the start: {start.fx[:32].hex()}")
    return "\n".join(remarks) + "\n" + case_text(table, expect)


def _registers(state: State, *, zeros: bool = False) -> dict[str, int]:
    count = 16 if state.bits == 64 else 8
    found = dict(zip(GPR_NAMES, state.gpr[:count], strict=False))
    for n in range(count):
        at = _XMM + 16 * n
        found[f"xmm{n}"] = int.from_bytes(state.fx[at : at + 16], "little")
    return {name: value for name, value in found.items() if value or zeros}


def _windows(state: State) -> dict[int, bytes]:
    found = {}
    for n, base in enumerate(WINDOWS):
        data = state.windows[n * WINDOW_BYTES : (n + 1) * WINDOW_BYTES]
        if any(data):
            found[_DATA_AT + base] = data
    return found
