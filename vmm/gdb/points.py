"""What gdb inserted with Z packets, each with its stop in the session and its conditions."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from hwmodel.cpu.stops import Watch
from vmm.debug.target import Target
from vmm.errors import UsageError
from vmm.gdb.bytecode import BytecodeError, evaluate
from vmm.gdb.registers import ALL, View
from vmm.vcpu import Vcpu


class Z(IntEnum):
    """The types of Z packets."""

    SOFTWARE = 0
    HARDWARE = 1
    WRITE = 2
    READ = 3
    ACCESS = 4


_WATCHES: Final = {Z.WRITE: Watch.WRITE, Z.READ: Watch.READ, Z.ACCESS: Watch.ACCESS}
TAGS: Final = {
    Z.SOFTWARE: "swbreak", Z.HARDWARE: "hwbreak", Z.WRITE: "watch", Z.READ: "rwatch",
    Z.ACCESS: "awatch",
}  # fmt: skip
Key = tuple[Z, int, int]
"""Type, address, and length or gdb's kind."""


@dataclass(slots=True)
class Point:
    """One of them; it stops if any condition holds, or if there is none."""

    kind: Z
    address: int
    number: int
    conditions: list[bytes] = field(default_factory=list)


class _About:
    """What a condition is about: the virtual CPU that hit the breakpoint."""

    def __init__(self, target: Target, vcpu: Vcpu) -> None:
        self._target: Final = target
        self._vcpu: Final = vcpu

    def register(self, number: int) -> int:
        if number >= len(ALL):
            raise KeyError(number)
        return ALL[number].read(View(self._vcpu, self._target.last_exit(self._vcpu)))

    def memory(self, address: int, size: int) -> bytes | None:
        data = self._target.read(self._vcpu, address, size)
        return data if len(data) == size else None


class Points:
    """All that gdb inserted and has not removed."""

    def __init__(self, target: Target) -> None:
        """None yet."""
        self._target: Final = target
        self._points: dict[Key, Point] = {}

    def insert(self, key: Key, conditions: list[bytes]) -> None:
        """Insert; of one that is there already, exchange the conditions. UsageError if refused."""
        if known := self._points.get(key):
            known.conditions = conditions
            return
        kind, address, size = key
        session, physical = self._target.session, self._target.physical
        if kind in _WATCHES:
            stop = session.watch(address, size, _WATCHES[kind], physical=physical)
        else:
            stop = session.break_at(address, physical=physical)
        self._points[key] = Point(kind, address, stop.number, conditions)

    def remove(self, key: Key) -> None:
        """Remove; nothing happens if it is not there."""
        if point := self._points.pop(key, None):
            self._target.session.remove(point.number)

    def clear(self) -> None:
        """Remove all: the client has gone."""
        for key in list(self._points):
            self.remove(key)

    @property
    def has_watches(self) -> bool:
        """Whether any watchpoint is inserted."""
        return any(point.kind in _WATCHES for point in self._points.values())

    def by_number(self, number: int | None) -> Point | None:
        """Return the one whose stop in the session has a number."""
        return next((point for point in self._points.values() if point.number == number), None)

    def holds(self, point: Point, vcpu: Vcpu) -> bool:
        """Whether a breakpoint that was hit stops: any at its address without a false condition."""
        if point.kind in _WATCHES:
            return True
        here = [
            one for one in self._points.values()
            if one.kind not in _WATCHES and one.address == point.address
        ]  # fmt: skip
        return any(self._is_true(one, vcpu) for one in here)

    def _is_true(self, point: Point, vcpu: Vcpu) -> bool:
        about = _About(self._target, vcpu)
        try:
            return not point.conditions or any(evaluate(code, about) for code in point.conditions)
        except BytecodeError:
            return True  # gdb evaluates it again, and tells its user what is wrong


def parse_z(payload: bytes) -> tuple[Key, list[bytes]]:
    """Read `TYPE,ADDR,KIND[;X LEN,BYTES...]` behind the Z. Raises UsageError."""
    head, *rest = payload.split(b";", 1)
    words = head.split(b",")
    try:
        kind, address, size = (int(word, 16) for word in words)
        key = (Z(kind), address & (1 << 64) - 1, size)
    except ValueError:
        raise UsageError(f"{payload[:40]!r} is no breakpoint") from None
    return key, _conditions(rest[0]) if rest else []


def _conditions(text: bytes) -> list[bytes]:
    """Read `X LEN,HEX X LEN,HEX ...`; what follows a `;` are commands, which we never offered."""
    found = []
    text = text.partition(b";")[0]
    while text.startswith(b"X"):
        length, comma, rest = text[1:].partition(b",")
        try:
            size = int(length, 16)
            found.append(bytes.fromhex(rest[: 2 * size].decode("ascii")))
        except ValueError:
            raise UsageError("a condition is not hexadecimal") from None
        if not comma or len(found[-1]) != size:
            raise UsageError("a condition is cut off")
        text = rest[2 * size :]
    if text:
        raise UsageError("a condition does not begin with X")
    return found
