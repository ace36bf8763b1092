"""The debugger's verbs: a line in, an answer out, as text and as data.

One language for the terminal debugger's command line, `ring1 debug --commands`, and gdb's
`monitor`. Verbs register themselves (vmm/debug/verbs/); others may add theirs.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any, Final

from vmm.debug.session import Session
from vmm.debug.stop import Stop, StopKind
from vmm.errors import UsageError
from vmm.symbols.guest import GuestNames

_ROOMS: Final = ("motion", "stops", "look", "machine", "explain")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a verb says: lines for people, data for programs (JSON's types)."""

    lines: Sequence[str] = ()
    data: dict[str, Any] = field(default_factory=dict)
    ends: bool = False
    """The user wants to leave."""


Function = Callable[["Shell", list[str]], Answer]


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb, how it is written, what it does."""

    names: tuple[str, ...]
    usage: str
    help: str
    function: Function


VERBS: Final[dict[str, Verb]] = {}


def verb(names: str, usage: str, text: str) -> Callable[[Function], Function]:
    """Register a verb under `names`, the first being its own."""

    def register(function: Function) -> Function:
        entry = Verb(tuple(names.split()), usage, text, function)
        VERBS.update(dict.fromkeys(entry.names, entry))
        return function

    return register


@cache
def load_verbs() -> dict[str, Verb]:
    """Return all verbs by name."""
    for room in _ROOMS:
        import_module(f"vmm.debug.verbs.{room}")
    return VERBS


class Shell:
    """The verbs on one session."""

    def __init__(self, session: Session) -> None:
        """`names` finds symbols; reading them waits until one is wanted."""
        load_verbs()
        self.session: Final = session
        self.vm: Final = session.vm
        self.names: Final = GuestNames(session.vm.config, session.vm.plan)

    def execute(self, line: str) -> Answer:
        """Carry out one line. Raises UsageError, one line, if it cannot be."""
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise UsageError(f"{line!r} cannot be read: {str(error).lower()}") from None
        if not words:
            return Answer()
        entry = VERBS.get(words[0])
        if entry is None:
            raise UsageError(f"there is no verb {words[0]!r}; help lists them")
        return entry.function(self, words[1:])

    # ---- reading words ----

    def address(self, word: str) -> int:
        """Read an address: a number, a register ($rip), a symbol, or one of these + or - a number.

        Raises UsageError.
        """
        for sign in "+-":
            base, found, offset = word.partition(sign)
            if found and base:
                amount = self.address(offset)
                return self.address(base) + (amount if sign == "+" else -amount) & (1 << 64) - 1
        if word.startswith("$"):
            value = self.registers().get(word[1:].lower())
            if value is None:
                raise UsageError(f"there is no register {word}; regs lists them")
            return value
        try:
            return int(word, 0)
        except ValueError:
            at = self.names.settle(self.session.vcpu).find(word)
        if at is None:
            hint = f"; the register is ${word}" if word.lower() in self.registers() else ""
            raise UsageError(f"{word!r} is no number and no symbol of the image{hint}")
        return at

    @staticmethod
    def number(words: list[str], default: int = 1, what: str = "a number") -> int:
        """Read a positive number from the front of `words`. Raises UsageError."""
        if not words:
            return default
        word = words.pop(0)
        try:
            value = int(word.replace(",", "").replace("_", ""), 0)
        except ValueError:
            raise UsageError(f"{word!r} is not {what}") from None
        if value < 0:
            raise UsageError(f"{word} is negative; give {what}")
        return value

    def registers(self) -> dict[str, int]:
        """The registers of the vCPU that runs, by name."""
        regs = self.session.vcpu.regs
        more = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "dr6", "dr7", "cs", "ss")
        return regs.as_dict() | {name: getattr(regs, name) for name in more}

    # ---- reporting ----

    def where(self) -> str:
        """RIP with its name."""
        vcpu = self.session.vcpu
        return self.names.settle(vcpu).text(vcpu.regs.rip) or f"{vcpu.regs.rip:#x}"

    def report(self, stop: Stop) -> Answer:
        """Say that the session has stopped."""
        data = stop_data(stop) | {"rip": self.session.vcpu.regs.rip}
        lines = [f"{_reason(stop)}", f"  at {stop.moment}, vCPU {stop.vcpu}: {self.where()}"]
        if stop.result is not None:
            message = stop.result.message or stop.result.reason
            lines.append(f"  {message} (status {stop.result.status})")
        return Answer(lines, data)


def stop_data(stop: Stop) -> dict[str, Any]:
    """A stop for programs."""
    moment, vmexit, result = stop.moment, stop.vmexit, stop.result
    data: dict[str, Any] = {
        "stop": str(stop.kind), "cycle": moment.cycle, "step": moment.steps,
        "exit": moment.exits, "open": moment.is_open, "vcpu": stop.vcpu,
    }  # fmt: skip
    if stop.number is not None:
        data |= {"breakpoint": stop.number, "address": stop.address}
    if stop.size:
        data |= {"size": stop.size, "write": stop.writes}
    if vmexit is not None:
        data["reason"] = vmexit.name
        data["qualification"] = vmexit.qualification
        data["gpa"] = vmexit.guest_physical
    if result is not None:
        data |= {"status": result.status, "ended": result.reason, "message": result.message}
    return data


def _reason(stop: Stop) -> str:
    match stop.kind:
        case StopKind.BREAKPOINT:
            return f"breakpoint {stop.number}"
        case StopKind.WATCHPOINT:
            how = "written" if stop.writes else "read"
            return f"watchpoint {stop.number}: {stop.size} bytes {how} at {stop.address:#x}"
        case StopKind.EXIT if stop.vmexit is not None:
            of = f"exit breakpoint {stop.number}: " if stop.number is not None else ""
            return f"{of}exit {stop.moment.exits:,} {stop.vmexit!r}"
        case StopKind.EXIT:
            return f"exit breakpoint {stop.number}: behind exit {stop.moment.exits:,}'s handler"
        case StopKind.BEGIN:
            return "the beginning: there is no earlier history"
        case StopKind.ENDED:
            return "the run is over"
        case StopKind.PAUSED:
            return "paused"
        case _:
            return "stopped"
