"""Where two machines differ in a sequence, and which differences are known and explained.

A known difference is one that Unicorn's core has, that is written down in docs/ORACLES.md with its
reason, and that is taken out of both sides before they are compared again. What is left over is
news.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from hwmodel.vmx.state import GPR_NAMES
from vmm.testing.fuzz.forms import opcodes_with
from vmm.testing.fuzz.record import (
    DATA,
    PAGE_FAULT,
    RECORD_BYTES,
    WINDOW_BYTES,
    WINDOWS,
    Program,
    State,
)

Pair = tuple[State, State]
_MXCSR, _FSW, _ST, _XMM = 24, 2, 32, 160
_GP: Final = 13


@dataclass(frozen=True, slots=True)
class Difference:
    """A sequence that does not end alike, after known differences were taken out."""

    program: Program
    ours: State
    theirs: State
    known: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Say field by field what differs: ours, then theirs."""
        found = [
            f"{name} {getattr(self.ours, name):#x} {getattr(self.theirs, name):#x}"
            for name in ("vector", "error", "address", "rip", "rflags")
            if getattr(self.ours, name) != getattr(self.theirs, name)
        ]
        for name, mine, other in zip(GPR_NAMES, self.ours.gpr, self.theirs.gpr, strict=True):
            if mine != other:
                found.append(f"{name} {mine:#x} {other:#x}")
        return found + _fx_lines(self.ours.fx, self.theirs.fx) + _memory_lines(*self._windows())

    def _windows(self) -> tuple[bytes, bytes]:
        return self.ours.windows, self.theirs.windows


def _fx_lines(mine: bytes, other: bytes) -> list[str]:
    places = [("fcw", 0, 2), ("fsw", _FSW, 2), ("ftw", 4, 1), ("mxcsr", _MXCSR, 4)]
    places += [(f"st{n}", _ST + 16 * n, 10) for n in range(8)]
    places += [(f"xmm{n}", _XMM + 16 * n, 16) for n in range(16)]
    return [
        f"{name} {_number(mine, at, size):#x} {_number(other, at, size):#x}"
        for name, at, size in places
        if mine[at : at + size] != other[at : at + size]
    ]


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _memory_lines(mine: bytes, other: bytes) -> list[str]:
    found = []
    for n, base in enumerate(WINDOWS):
        for offset in range(0, WINDOW_BYTES, 8):
            at = n * WINDOW_BYTES + offset
            if mine[at : at + 8] != other[at : at + 8]:
                a, b = mine[at : at + 8].hex(), other[at : at + 8].hex()
                found.append(f"[{DATA + base + offset:#x}] {a} {b}")
    return found


# ---- known differences ----


def _patched(state: State, at: int, data: bytes) -> State:
    return replace(state, fx=state.fx[:at] + data + state.fx[at + len(data) :])


def _mxcsr_flags(ours: State, theirs: State, _program: Program) -> Pair:
    """The exception flags of MXCSR."""
    value = _number(theirs.fx, _MXCSR, 4)
    mine = _number(ours.fx, _MXCSR, 4) & ~0x3F | value & 0x3F
    return _patched(ours, _MXCSR, mine.to_bytes(4, "little")), theirs


def _fsw_flags(ours: State, theirs: State, _program: Program) -> Pair:
    """The exception flags of the x87 status word, and C1 as "rounded up"."""
    value = _number(theirs.fx, _FSW, 2)
    mine = _number(ours.fx, _FSW, 2) & ~0x2FF | value & 0x2FF
    return _patched(ours, _FSW, mine.to_bytes(2, "little")), theirs


def _mmx_exponent(ours: State, theirs: State, _program: Program) -> Pair:
    """Sign and exponent of an x87 register that an MMX instruction wrote: all ones."""
    for n in range(8):
        at = _ST + 16 * n + 8
        if theirs.fx[at : at + 2] == b"\xff\xff":
            ours = _patched(ours, at, b"\xff\xff")
    return ours, theirs


def _mmx_transition(ours: State, theirs: State, program: Program) -> Pair:
    """TOP and tags after an MMX instruction; the registers themselves are compared."""
    if not has_any(program, opcodes_with("P", "Q", "N")):
        return ours, theirs
    mine, other = _top(ours), _top(theirs)
    image = [ours.fx[_ST + 16 * n : _ST + 16 * n + 16] for n in range(8)]
    image = [image[n + other - mine & 7] for n in range(8)]
    ours = _patched(ours, _ST, b"".join(image))
    return _patched(ours, _FSW, theirs.fx[_FSW : _FSW + 3]), theirs


def _top(state: State) -> int:
    return state.fx[_FSW + 1] >> 3 & 7


def _denormals(ours: State, theirs: State, program: Program) -> Pair:
    """Results where MXCSR asks for denormals to be zero."""
    if not _number(program.start.fx, _MXCSR, 4) & 0x8040:
        return ours, theirs
    return _patched(ours, _XMM, theirs.fx[_XMM : _XMM + 256]), theirs


_X87_CONSTANTS: Final = frozenset(range(0xE9, 0xEE))
_X87_WRONG: Final = frozenset((0xE5, 0xF4, 0xF5, 0xF8, 0xFC, 0xFD))
_FCW_ROUNDING: Final = 0xC00


def _x87_results(ours: State, theirs: State, program: Program) -> Pair:
    """FPREM, FPREM1, FSCALE, FXTRACT, FRNDINT; stores of what is too large or a signaling NaN;
    constants in another rounding.
    """
    rounds = _number(program.start.fx, 0, 2) & _FCW_ROUNDING
    wrong = any(_is_wrong_x87(code, rounds) for code in program.instructions)
    if not wrong and not _has_odd_operand(program):
        return ours, theirs
    fx = _patched(ours, _FSW, theirs.fx[_FSW:_XMM])
    if ours.windows != theirs.windows:  # what was stored wrong may have been loaded
        fx = replace(fx, gpr=theirs.gpr)
    done = replace(fx, windows=theirs.windows, rflags=theirs.rflags)
    if ours.vector == theirs.vector == PAGE_FAULT:
        done = replace(done, error=theirs.error, address=theirs.address)
    return done, theirs


def _has_odd_operand(program: Program) -> bool:
    """Whether x87 works on a denormal, an unsupported format or a signaling NaN."""
    if not any(0xD8 <= opcode_of(code)[1][0] <= 0xDF for code in program.instructions):
        return False
    images = (program.start.fx[_ST + 16 * n : _ST + 16 * n + 10] for n in range(8))
    return any(_is_odd(_number(image, 8, 2) & 0x7FFF, _number(image, 0, 8)) for image in images)


def _is_odd(exponent: int, mantissa: int) -> bool:
    normal = mantissa >> 63 == 1 and 0 < exponent < 0x7FFF
    return not normal and not (exponent == 0 and mantissa == 0)


def _is_wrong_x87(code: bytes, rounds: int) -> bool:
    opcode = opcode_of(code)[1]
    if len(opcode) < 2:
        return False
    first, second = opcode[:2]
    if second >= 0xC0:
        wrong = second in _X87_WRONG or (rounds != 0 and second in _X87_CONSTANTS)
        return first == 0xD9 and wrong
    reg = second >> 3 & 7
    stores = first in (0xD9, 0xDD) and reg in (2, 3)
    return stores or (first in (0xDB, 0xDD, 0xDF) and reg == 1) or (first == 0xDF and reg in (4, 6))


def _sse_nan(ours: State, theirs: State, _program: Program) -> Pair:
    """Which of several NaNs an SSE operation returns."""
    mine = bytearray(ours.fx)
    for at in range(_XMM, _XMM + 256, 4):
        lane = slice(at, at + 4)
        double = slice(_XMM + (at - _XMM) // 8 * 8, _XMM + (at - _XMM) // 8 * 8 + 8)
        if _both_nan32(mine[lane], theirs.fx[lane]):
            mine[lane] = theirs.fx[lane]
        elif _both_nan64(mine[double], theirs.fx[double]):
            mine[double] = theirs.fx[double]
    return replace(ours, fx=bytes(mine)), theirs


_DOTS: Final = (b"\x0f\x3a\x40", b"\x0f\x3a\x41")


def _dot_product(ours: State, theirs: State, program: Program) -> Pair:
    """DPPS adds its four products in another order."""
    if not any(opcode_of(code)[1][:3] in _DOTS for code in program.instructions):
        return ours, theirs
    return _patched(ours, _XMM, theirs.fx[_XMM : _XMM + 256]), theirs


_SCANS: Final = (b"\x0f\xbc", b"\x0f\xbd")


def _scan_of_zero(ours: State, theirs: State, program: Program) -> Pair:
    """BSF and BSR of zero with a 32-bit destination: undefined; the upper half is kept or not."""
    if not any(
        opcode_of(code)[1][:2] in (b"\x0f\xbc", b"\x0f\xbd") for code in program.instructions
    ):
        return ours, theirs
    low = 0xFFFF_FFFF
    gpr = tuple(
        b if a != b and a & low == b & low and not a >> 32 else a
        for a, b in zip(ours.gpr, theirs.gpr, strict=True)
    )
    return replace(ours, gpr=gpr), theirs


def _both_nan32(a: bytes | bytearray, b: bytes) -> bool:
    return all(int.from_bytes(x, "little") & 0x7FFF_FFFF > 0x7F80_0000 for x in (a, b))


def _both_nan64(a: bytes | bytearray, b: bytes) -> bool:
    limit = 0x7FF0 << 48
    return all(int.from_bytes(x, "little") & ~(1 << 63) > limit for x in (a, b))


def _half_done(ours: State, theirs: State, program: Program) -> Pair:
    """An access of 16 bytes whose second half faults: the first half has been done."""
    if theirs.vector != PAGE_FAULT or ours.rip != theirs.rip:
        return ours, theirs
    code = _instruction_at(program, theirs.rip)
    opcode = b"" if code is None else opcode_of(code)[1]
    if opcode[:1] not in (b"\x0f", b"\xdb"):  # DB: FSTP of 80 bits
        return ours, theirs
    mine = _patched(ours, _XMM, theirs.fx[_XMM : _XMM + 256])
    return replace(mine, windows=theirs.windows), theirs


Explainer = Callable[[State, State, Program], Pair]
EXPLAINERS: Final[dict[str, Explainer]] = {
    "mxcsr-flags": _mxcsr_flags,
    "x87-flags": _fsw_flags,
    "mmx-transition": _mmx_transition,
    "mmx-exponent": _mmx_exponent,
    "denormals": _denormals,
    "x87-results": _x87_results,
    "half-done": _half_done,
    "sse-nan": _sse_nan,
    "dpps-order": _dot_product,
    "scan-of-zero": _scan_of_zero,
}


def compare(program: Program, ours: State, theirs: State) -> Difference | tuple[str, ...]:
    """Return a difference that nothing known explains, or the names of what does."""
    known = []
    mine, other = ours, theirs
    if (reason := _goes_another_way(program, ours, theirs)) is not None:
        return (reason,)
    for name, explain in EXPLAINERS.items():
        after = explain(mine, other, program)
        if after != (mine, other):
            known.append(name)
            mine, other = after
        if mine == other:
            return tuple(known)
    return Difference(program, mine, other, tuple(known))


def _goes_another_way(program: Program, ours: State, theirs: State) -> str | None:
    """Differences after which nothing can be compared: the program went on or it did not."""
    first = min(ours.rip, theirs.rip)
    code = _instruction_at(program, first)
    if code is None or (ours.rip, ours.vector) == (theirs.rip, theirs.vector):
        return None
    if (theirs.vector, theirs.error) == (_GP, 0) and is_any(code, opcodes_with("W16a", "M16a")):
        return "sse-alignment"
    if ours.vector == PAGE_FAULT and _reads_too_much(opcode_of(code)):
        return "reads-too-much"
    if opcode_of(code)[1][:2] in (b"\x0f\x20", b"\x0f\x22"):
        return "lock-mov-cr"
    if theirs.vector == PAGE_FAULT and opcode_of(code)[1][:2] == b"\x0f\xae":
        return "clflush"
    return None


_TOO_MUCH: Final = frozenset(
    {
        b"\x0f\x3a\x0a",
        b"\x0f\x3a\x0b",
        b"\x0f\x60",
        b"\x0f\x61",
        b"\x0f\x62",
        b"\x0f\x2c",
        b"\x0f\x2d",
        b"\x0f\x5a",
        b"\x0f\xe6",
    }
)


def _reads_too_much(instruction: tuple[int, bytes]) -> bool:
    """Whether the core reads more of the memory operand than the instruction has."""
    opcode = instruction[1]
    return opcode[:2] in _TOO_MUCH or opcode[:3] in _TOO_MUCH


def _instruction_at(program: Program, rip: int) -> bytes | None:
    at = program.start.rip
    for code in program.instructions:
        if at == rip:
            return code
        at += len(code)
    return None


def opcode_of(code: bytes) -> tuple[int, bytes]:
    """Return the last of the prefixes 66, F2, F3 (0: none), and what follows all prefixes."""
    prefix = at = 0
    while at < len(code) - 1 and (code[at] in _PREFIXES or code[at] & 0xF0 == 0x40):
        if code[at] in (0x66, 0xF2, 0xF3):
            prefix = code[at]
        at += 1
    return prefix, code[at:]


_PREFIXES: Final = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))


def is_any(code: bytes, opcodes: frozenset[tuple[int, bytes]]) -> bool:
    """Whether an instruction has one of these prefixes and opcodes."""
    prefix, rest = opcode_of(code)
    return any((prefix, rest[:size]) in opcodes for size in (2, 3))


def has_any(program: Program, opcodes: frozenset[tuple[int, bytes]]) -> bool:
    """Whether an instruction of a program has one of these prefixes and opcodes."""
    return any(is_any(code, opcodes) for code in program.instructions)


def differing(ours: bytes, theirs: bytes, count: int) -> list[int]:
    """Return the numbers of the records that are not the same."""
    if ours == theirs:
        return []
    ends = [(n, n * RECORD_BYTES, (n + 1) * RECORD_BYTES) for n in range(count)]
    return [n for n, first, end in ends if ours[first:end] != theirs[first:end]]
