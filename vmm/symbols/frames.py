"""Call chains: from a processor's registers back through its stack.

The image says how: Linux by its ORC tables, others by DWARF call frame information, and where
there is neither the frame pointer is followed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from vmm.symbols.orc import Base, Kind, OrcTable, Rule

MOST_FRAMES: Final = 64
_MASK64: Final = (1 << 64) - 1
# Linux, arch/x86/include/asm/ptrace.h, struct pt_regs: 64-bit words
_PT_REGS: Final = {"r13": 2, "rbp": 4, "r10": 7, "rdx": 12, "rdi": 14}
_PT_IP, _PT_CS, _PT_SP = 16, 17, 19
_IRET_IP, _IRET_SP = 0, 3
_HELD: Final = {Base.DX: "rdx", Base.DI: "rdi", Base.R10: "r10", Base.R13: "r13"}

Read = Callable[[int, int], bytes | None]
"""Linear address and size: the bytes, None where nothing is mapped."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One function under way: where it is, and its stack pointer."""

    pc: int
    sp: int
    bp: int
    held: dict[str, int] = field(default_factory=dict)
    """Further registers, while they are known."""
    returns: bool = False
    """Whether `pc` is a return address: the call is before it."""

    @property
    def site(self) -> int:
        """An address inside the instruction that this frame is at."""
        return self.pc - 1 if self.returns else self.pc


class Unwinder(Protocol):
    """Finds a frame's caller."""

    def caller(self, frame: Frame, read: Read) -> Frame | None:
        """Return the frame that called `frame`; None at the end or where it is not known."""


def chain(first: Frame, unwinders: list[Unwinder], read: Read) -> Iterator[Frame]:
    """Yield `first` and its callers; each step is the first unwinder's that knows it."""
    frame: Frame | None = first
    for _ in range(MOST_FRAMES):
        if frame is None:
            return
        yield frame
        below = frame
        found = (unwinder.caller(below, read) for unwinder in unwinders)
        frame = next((one for one in found if one is not None), None)
        if frame is not None and frame.sp <= below.sp and frame.pc == below.pc:
            return  # a damaged stack that goes in circles


def word(read: Read, at: int, size: int) -> int | None:
    """Read a word of the stack."""
    data = read(at & _MASK64, size)
    return None if data is None else int.from_bytes(data, "little")


class OrcUnwinder:
    """Linux's own way. `slide` is what KASLR added to link addresses."""

    def __init__(self, table: OrcTable, slide: Callable[[], int]) -> None:
        """`slide` is asked at each step: it is found while the guest boots."""
        self._table: Final = table
        self._slide: Final = slide

    def caller(self, frame: Frame, read: Read) -> Frame | None:
        """Return the caller's frame."""
        rule = self._table.at(frame.site - self._slide())
        if rule is None or rule.ends:
            return None
        top = self._stack(rule, frame, read)
        if top is None:
            return None
        bp = self._saved_bp(rule, frame, top, read)
        if rule.kind is Kind.CALL:
            pc = word(read, top - 8, 8)
            return None if not pc or bp is None else Frame(pc, top, bp, returns=True)
        return _interrupted(rule.kind, top, frame.bp if bp is None else bp, read)

    def _stack(self, rule: Rule, frame: Frame, read: Read) -> int | None:
        match rule.sp_base:
            case Base.SP:
                return frame.sp + rule.sp_offset
            case Base.BP:
                return frame.bp + rule.sp_offset
            case Base.SP_INDIRECT:
                at = word(read, frame.sp, 8)
                return None if at is None else at + rule.sp_offset
            case Base.BP_INDIRECT:
                return word(read, frame.bp + rule.sp_offset, 8)
            case _:
                return frame.held.get(_HELD.get(rule.sp_base, ""))

    def _saved_bp(self, rule: Rule, frame: Frame, top: int, read: Read) -> int | None:
        if rule.bp_base is Base.PREV_SP:
            return word(read, top + rule.bp_offset, 8)
        if rule.bp_base is Base.BP:
            return word(read, frame.bp + rule.bp_offset, 8)
        return frame.bp


def _interrupted(kind: Kind, top: int, bp: int, read: Read) -> Frame | None:
    """Return what an interrupt or exception met: its registers lie at `top`."""
    if kind is Kind.REGS_PARTIAL:
        pc, sp = word(read, top + 8 * _IRET_IP, 8), word(read, top + 8 * _IRET_SP, 8)
        return None if pc is None or sp is None else Frame(pc, sp, bp)
    saved = {name: word(read, top + 8 * at, 8) for name, at in _PT_REGS.items()}
    held = {name: value for name, value in saved.items() if value is not None}
    pc, sp = word(read, top + 8 * _PT_IP, 8), word(read, top + 8 * _PT_SP, 8)
    return None if pc is None or sp is None else Frame(pc, sp, held.get("rbp", bp), held)


class PointerUnwinder:
    """Follows RBP: each function that has begun pushed its caller's, below the return address."""

    def __init__(self, bits: Callable[[], int], is_code: Callable[[int], bool]) -> None:
        """`bits`: 16, 32 or 64 wide words; `is_code` tells a return address from anything else."""
        self._bits: Final = bits
        self._is_code: Final = is_code

    def caller(self, frame: Frame, read: Read) -> Frame | None:
        """Return the caller's frame, if what lies there can be one."""
        size = self._bits() // 8
        saved, pc = word(read, frame.bp, size), word(read, frame.bp + size, size)
        if saved is None or pc is None or frame.bp < frame.sp - size or not self._is_code(pc):
            return None
        return Frame(pc, frame.bp + 2 * size, saved, returns=True)


class EntryUnwinder:
    """A function at its first instruction: the return address is on top of the stack."""

    def __init__(self, bits: Callable[[], int], is_start: Callable[[int], bool]) -> None:
        """`is_start` says whether a function begins at an address."""
        self._bits: Final = bits
        self._is_start: Final = is_start

    def caller(self, frame: Frame, read: Read) -> Frame | None:
        """Return the caller's frame."""
        if frame.returns or not self._is_start(frame.pc):
            return None
        size = self._bits() // 8
        pc = word(read, frame.sp, size)
        return None if not pc else replace(frame, pc=pc, sp=frame.sp + size, returns=True, held={})
