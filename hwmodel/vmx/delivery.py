"""The readable twin of event delivery (cext/deliver.c, interrupt.c): through the IDT to a handler.

The steps are those of "INT n/INTO/INT3/INT1" and "Interrupt and Exception Handling", for real mode,
protected mode and IA-32e mode. Memory is linear and all there: what paging objects to is the walk's
business. Not here: V8086 mode, whose rules tests/native has; task gates end as `TaskSwitches`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hwmodel.arch.events import EventType, Vector

ReadLinear = Callable[[int, int], int]
TF, IF, NT, RF, VM = 1 << 8, 1 << 9, 1 << 14, 1 << 16, 1 << 17
_AC: Final = 1 << 18
_TRAPS: Final = frozenset({Vector.DB, Vector.BP, Vector.OF, Vector.DF, Vector.MC})
_SOFTWARE: Final = frozenset(
    {EventType.SOFTWARE_INTERRUPT, EventType.PRIVILEGED_SOFTWARE_EXCEPTION,
     EventType.SOFTWARE_EXCEPTION}
)  # fmt: skip
_NULL: Final = 3  # selectors up to here are null


@dataclass(frozen=True, slots=True)
class Table:
    """A descriptor table, or the TSS: where it is, its limit, and the TSS's selector."""

    base: int
    limit: int
    selector: int = 0


@dataclass(frozen=True, slots=True)
class Before:
    """The processor when an event comes."""

    mode: str
    """"real", "protected" or "long"."""
    cpl: int
    cs: int
    ss: int
    rip: int
    rsp: int
    rflags: int
    idt: Table
    gdt: Table
    tss: Table


@dataclass(frozen=True, slots=True)
class Event:
    """What is delivered; `length` is that of the instruction that asked for it."""

    vector: int
    type: EventType
    error: int | None = None
    length: int = 0

    @property
    def ext(self) -> int:
        """The EXT bit of an error code: not by an instruction of the program."""
        return int(self.type not in {EventType.SOFTWARE_INTERRUPT, EventType.SOFTWARE_EXCEPTION})


@dataclass(frozen=True, slots=True)
class Delivered:
    """The handler runs; `pushed` are the values on its stack, the last pushed first."""

    cs: int
    ss: int
    rip: int
    rsp: int
    rflags: int
    unit: int
    """Bytes of each pushed value."""
    pushed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Faulted:
    """An exception on the way; what becomes of the two of them is another question."""

    vector: Vector
    error: int


@dataclass(frozen=True, slots=True)
class TaskSwitches:
    """A task gate."""

    selector: int


class FaultError(Exception):
    """Unwinds a delivery."""

    def __init__(self, vector: Vector, error: int) -> None:
        super().__init__()
        self.end = Faulted(vector, error)


@dataclass(frozen=True, slots=True)
class _Descriptor:
    selector: int
    raw: int

    @property
    def is_code(self) -> bool:
        return self.raw >> 43 & 3 == 3

    @property
    def is_conforming(self) -> bool:
        return bool(self.raw >> 42 & 1)

    @property
    def is_writable_data(self) -> bool:
        return self.raw >> 43 & 3 == 2 and bool(self.raw >> 41 & 1)

    @property
    def dpl(self) -> int:
        return self.raw >> 45 & 3

    @property
    def is_present(self) -> bool:
        return bool(self.raw >> 47 & 1)

    @property
    def is_64_bit(self) -> bool:
        return self.raw >> 53 & 3 == 1  # L = 1, D = 0

    @property
    def limit(self) -> int:
        limit = self.raw & 0xFFFF | self.raw >> 32 & 0xF0000
        return limit << 12 | 0xFFF if self.raw >> 55 & 1 else limit

    def reaches(self, first: int, last: int) -> bool:
        """Whether the segment has these offsets; one that expands down has those above."""
        expands_down = not self.is_code and self.raw >> 42 & 1
        if not expands_down:
            return first >= 0 and last <= self.limit
        return first > self.limit and last <= (0xFFFF_FFFF if self.raw >> 54 & 1 else 0xFFFF)


def deliver(state: Before, event: Event, read: ReadLinear) -> Delivered | Faulted | TaskSwitches:
    """Deliver an event: where it leads, or what stands in the way."""
    try:
        if state.mode == "real":
            return _through_vectors(state, event, read)
        return _Gate(state, event, read).deliver()
    except FaultError as fault:
        return fault.end


def _through_vectors(state: Before, event: Event, read: ReadLinear) -> Delivered:
    """Real-address mode: a far pointer for each vector; no error codes."""
    if event.vector * 4 + 3 > state.idt.limit:
        raise FaultError(Vector.GP, 0)
    pointer = read(state.idt.base + event.vector * 4, 4)
    flags, rip = _saved_flags(state, event), _saved_rip(state, event)
    return Delivered(
        cs=pointer >> 16, ss=state.ss, rip=pointer & 0xFFFF, rsp=_down(state.rsp, 6, 16),
        rflags=state.rflags & ~(IF | TF | RF | _AC), unit=2,
        pushed=(rip & 0xFFFF, state.cs, flags & 0xFFFF),
    )  # fmt: skip


class _Gate:
    """Protected mode and IA-32e mode."""

    def __init__(self, state: Before, event: Event, read: ReadLinear) -> None:
        self.state, self.event, self.read = state, event, read
        self.is_long = state.mode == "long"
        self.size = 16 if self.is_long else 8

    def deliver(self) -> Delivered | TaskSwitches:
        gate = self._gate()
        kind = gate >> 40 & 15
        selector = gate >> 16 & 0xFFFF
        if kind == 5:
            return TaskSwitches(selector)
        code = self._code(selector)
        inner = not code.is_conforming and code.dpl < self.state.cpl
        cpl = code.dpl if inner else self.state.cpl
        unit = 8 if self.is_long else 4 if kind & 8 else 2
        ss, rsp, room = self._stack(gate, inner, cpl)
        offset = self._offset(gate, unit)
        if not self.is_long and offset > code.limit:
            raise FaultError(Vector.GP, self.event.ext)
        pushed = self._frame(inner)
        if room is not None and not room.reaches(rsp - unit * len(pushed), rsp - 1):
            raise FaultError(Vector.SS, ss & ~3 | self.event.ext)
        cleared = TF | NT | RF | VM | (0 if kind & 1 else IF)
        return Delivered(
            cs=selector & ~3 | cpl, ss=ss, rip=offset,
            rsp=_down(rsp, unit * len(pushed), 64 if self.is_long else 32),
            rflags=self.state.rflags & ~cleared, unit=unit,
            pushed=tuple(value & (1 << 8 * unit) - 1 for value in reversed(pushed)),
        )  # fmt: skip

    def _gate(self) -> int:
        """The gate, with its type, its privilege level and its present bit checked."""
        event, at = self.event, self.event.vector * self.size
        error = event.vector * 8 + 2 + event.ext
        if at + self.size - 1 > self.state.idt.limit:
            raise FaultError(Vector.GP, error)
        gate = self.read(self.state.idt.base + at, self.size)
        kinds = {14, 15} if self.is_long else {5, 6, 7, 14, 15}
        if gate >> 44 & 1 or gate >> 40 & 15 not in kinds:
            raise FaultError(Vector.GP, error)
        by_program = event.type in {EventType.SOFTWARE_INTERRUPT, EventType.SOFTWARE_EXCEPTION}
        if by_program and gate >> 45 & 3 < self.state.cpl:
            raise FaultError(Vector.GP, error)
        if not gate >> 47 & 1:
            raise FaultError(Vector.NP, error)
        return gate

    def _descriptor(self, selector: int, vector: Vector) -> _Descriptor:
        """The segment's descriptor; beyond the table is a fault with the selector."""
        if selector & ~7 | 7 > self.state.gdt.limit:
            raise FaultError(vector, selector & ~3 | self.event.ext)
        return _Descriptor(selector, self.read(self.state.gdt.base + (selector & ~7), 8))

    def _code(self, selector: int) -> _Descriptor:
        if selector <= _NULL:
            raise FaultError(Vector.GP, self.event.ext)
        code = self._descriptor(selector, Vector.GP)
        wrong_size = self.is_long and not code.is_64_bit
        if not code.is_code or code.dpl > self.state.cpl or wrong_size:
            raise FaultError(Vector.GP, selector & ~3 | self.event.ext)
        if not code.is_present:
            raise FaultError(Vector.NP, selector & ~3 | self.event.ext)
        return code

    def _offset(self, gate: int, unit: int) -> int:
        low = gate & 0xFFFF
        if unit == 2:
            return low
        middle = low | gate >> 32 & 0xFFFF_0000
        return middle | gate >> 64 << 32 & (1 << 64) - 1 if unit == 8 else middle

    def _stack(self, gate: int, inner: bool, cpl: int) -> tuple[int, int, _Descriptor | None]:
        """SS, the stack pointer at which the frame begins, the segment if it is another one."""
        state = self.state
        if not self.is_long:
            return self._inner_stack(cpl) if inner else (state.ss, state.rsp, None)
        ist = gate >> 32 & 7
        rsp = self._tss(0x24 + 8 * (ist - 1) if ist else 4 + 8 * cpl, 8) if ist or inner else None
        return cpl if inner else state.ss, (state.rsp if rsp is None else rsp) & ~15, None

    def _inner_stack(self, cpl: int) -> tuple[int, int, _Descriptor]:
        """A 32-bit TSS's stack for a privilege level; its segment must be of that level."""
        both, event = self._tss(4 + 8 * cpl, 6), self.event
        esp, selector = both & 0xFFFF_FFFF, both >> 32
        if selector <= _NULL:
            raise FaultError(Vector.TS, event.ext)
        ss = self._descriptor(selector, Vector.TS)
        error = selector & ~3 | event.ext
        if selector & 3 != cpl or ss.dpl != cpl or not ss.is_writable_data:
            raise FaultError(Vector.TS, error)
        if not ss.is_present:
            raise FaultError(Vector.SS, error)
        return selector, esp, ss

    def _tss(self, offset: int, size: int) -> int:
        tss = self.state.tss
        if offset + size - 1 > tss.limit:
            raise FaultError(Vector.TS, tss.selector & ~3 | self.event.ext)
        return self.read(tss.base + offset, size)

    def _frame(self, inner: bool) -> list[int]:
        """What is pushed, the first first."""
        state, event = self.state, self.event
        outer = [state.ss, state.rsp] if inner or self.is_long else []
        saved = [_saved_flags(state, event), state.cs, _saved_rip(state, event)]
        return [*outer, *saved, *([] if event.error is None else [event.error])]


def _saved_rip(state: Before, event: Event) -> int:
    """Behind the instruction that asked for it; else the one that is next, or that faulted."""
    return state.rip + (event.length if event.type in _SOFTWARE else 0)


def _saved_flags(state: Before, event: Event) -> int:
    """RF is 1 in the image of a fault, so that the instruction is not stopped at again."""
    if event.type in _SOFTWARE:
        return state.rflags & ~RF
    if event.type is not EventType.HARDWARE_EXCEPTION or event.vector in _TRAPS:
        return state.rflags
    return state.rflags | RF


def _down(rsp: int, distance: int, bits: int) -> int:
    """The stack pointer less `distance`; a narrower one leaves the bits above alone."""
    mask = (1 << bits) - 1
    return rsp & ~mask | (rsp - distance) & mask
