"""Breakpoints as an editor sets them: each kind as a whole, replacing what there was."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from hwmodel.arch.exits import ExitReason
from hwmodel.cpu.stops import Watch
from vmm.dap.channel import Message
from vmm.debug.stop import AnyStop
from vmm.debug.target import Target
from vmm.errors import UsageError

_WATCHES: Final = {"read": Watch.READ, "write": Watch.WRITE, "readWrite": Watch.ACCESS}
Arguments = dict[str, Any]


class Points:
    """What the client has set, by kind; a kind of source breakpoints is its file's path."""

    def __init__(self, target: Target) -> None:
        """None yet."""
        self._target: Final = target
        self._set: Final[dict[str, list[int]]] = {}

    def _replace(self, kind: str, made: Iterator[tuple[Message, list[AnyStop]]]) -> list[Message]:
        for number in self._set.pop(kind, []):
            self._target.session.remove(number)
        numbers, answers = self._set.setdefault(kind, []), []
        for answer, stops in made:
            numbers += [stop.number for stop in stops]
            answers.append({"verified": bool(stops)} | answer)
        return answers

    def kind_of(self, number: int | None) -> str:
        """Return the kind of the breakpoint with that number in the session."""
        found = (kind for kind, numbers in self._set.items() if number in numbers)
        return next(found, "")

    def in_source(self, arguments: Arguments) -> list[Message]:
        """setBreakpoints: lines of one file."""
        path = str(arguments["source"].get("path") or arguments["source"].get("name", ""))
        lines = [int(one["line"]) for one in arguments.get("breakpoints", [])]
        return self._replace("source " + path, (self._at_line(path, line) for line in lines))

    def _at_line(self, path: str, line: int) -> tuple[Message, list[AnyStop]]:
        image, session = self._target.names.image, self._target.session
        addresses = image.addresses(path, line)
        if not addresses:
            return {"message": f"no code of the image is of {path}:{line}", "line": line}, []
        found = image.line_at(addresses[0])
        answer = {"line": found.line if found else line, "instructionReference": hex(addresses[0])}
        return answer, [session.break_at(address) for address in addresses]

    def at_functions(self, arguments: Arguments) -> list[Message]:
        """setFunctionBreakpoints: names or addresses."""
        names = [str(one["name"]) for one in arguments.get("breakpoints", [])]
        return self._replace("function", (self._at(name, name) for name in names))

    def at_instructions(self, arguments: Arguments) -> list[Message]:
        """setInstructionBreakpoints: addresses with offsets."""
        places = [
            (str(one["instructionReference"]), int(one.get("offset", 0)))
            for one in arguments.get("breakpoints", [])
        ]
        made = (self._at(f"{at}{offset:+}" if offset else at, at, offset) for at, offset in places)
        return self._replace("instruction", made)

    def _at(self, shown: str, name: str, offset: int = 0) -> tuple[Message, list[AnyStop]]:
        address = self._target.names.image.find(name)
        if address is None:
            return {"message": f"{shown} is neither a symbol of the image nor a number"}, []
        stop = self._target.session.break_at(address + offset & (1 << 64) - 1)
        return {"instructionReference": hex(address + offset)}, [stop]

    def at_exits(self, arguments: Arguments) -> list[Message]:
        """setExceptionBreakpoints: exit reasons, each with a condition if one is given."""
        wanted = [(str(name), "") for name in arguments.get("filters", [])]
        wanted += [
            (str(one["filterId"]), str(one.get("condition") or ""))
            for one in arguments.get("filterOptions", [])
        ]
        return self._replace("exit", (self._at_exit(*one) for one in wanted))

    def _at_exit(self, name: str, condition: str) -> tuple[Message, list[AnyStop]]:
        text = condition if name == "*" else f"reason={name}"
        if condition and name != "*":
            alternatives = "|" in condition or " or " in condition
            text += f" & ({condition})" if alternatives else f" & {condition}"
        return self._tried(lambda: self._target.session.break_on_exit(text or "cycle>=0"))

    def at_data(self, arguments: Arguments) -> list[Message]:
        """setDataBreakpoints: `ADDRESS/SIZE`, as dataBreakpointInfo named them."""
        return self._replace("data", map(self._at_datum, arguments.get("breakpoints", [])))

    def _at_datum(self, one: Arguments) -> tuple[Message, list[AnyStop]]:
        address, _, size = str(one["dataId"]).partition("/")
        kinds = _WATCHES[one.get("accessType") or "write"]
        return self._tried(
            lambda: self._target.session.watch(int(address, 0), int(size or "8"), kinds)
        )

    @staticmethod
    def _tried(make: Callable[[], AnyStop]) -> tuple[Message, list[AnyStop]]:
        try:
            return {}, [make()]
        except (UsageError, ValueError) as error:
            return {"message": str(error)}, []


def exception_filters() -> list[Message]:
    """Return a filter for each exit reason, and one for all: tick boxes of the editor."""
    condition = {
        "supportsCondition": True,
        "conditionDescription": "gpa in 0xfee00000..0xfee01000 & write & n>=3",
    }
    named = [
        {"filter": reason.name, "label": reason.name, "description": reason.manual} | condition
        for reason in ExitReason
    ]
    return [{"filter": "*", "label": "Every VM-exit"} | condition, *named]
