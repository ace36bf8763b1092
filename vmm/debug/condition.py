"""The language of exit conditions, and its translation for the engine.

    reason=EPT_VIOLATION & gpa in 0xfee00000..0xfee01000 & write & n>=3
    port=0x3f8 & !read | msr in 0x800..0x900 | leaf=0x40000000

    or      and ('|' and)*                  also 'or', '||'
    and     term ('&' term)*                also 'and', '&&'
    term    '!' term | '(' or ')' | NAME | NAME OP value | NAME in value '..' value
    OP      = == != < <= > >=
    value   number | name of an exit reason

A range holds its first value and not its last. A bare name holds where it is not 0. `n` counts the
exits for which the rest holds, from 1; it is and-ed to the rest. Names: vmm/debug/operands.py.
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from hwmodel.arch.exits import ExitReason
from hwmodel.arch.operations import Operation
from hwmodel.vmx.exit import Exit
from vmm.debug.operands import ALL, COUNT, REASON, REASONS, Source, operands
from vmm.errors import UsageError

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>0[xX][0-9a-fA-F]+|\d+)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign>\.\.|==|!=|<=|>=|&&|\|\||[=<>!&|()])|(?P<bad>\S))"
)
CONST, LOAD, EXTRACT, EQ, NE, LT, LE, GT, GE, WITHIN, AND, OR, NOT = range(13)  # cext/stops.c
_COMPARISONS: Final = {"=": EQ, "==": EQ, "!=": NE, "<": LT, "<=": LE, ">": GT, ">=": GE}
_PYTHON: Final[dict[int, Callable[[int, int], bool]]] = {
    EQ: operator.eq, NE: operator.ne, LT: operator.lt, LE: operator.le, GT: operator.gt,
    GE: operator.ge, AND: lambda a, b: bool(a and b), OR: lambda a, b: bool(a or b),
}  # fmt: skip
_REASONS: Final[dict[str, int]] = {m.name: int(m) for kind in (Operation, ExitReason) for m in kind}
_DEEPEST: Final = 24  # the engine's stack has 32 cells, and a term takes up to 4
_WORDS: Final = {"and": "&", "&&": "&", "or": "|", "||": "|", "not": "!"}
Code = tuple[int, ...]


class ConditionError(UsageError):
    """A condition that cannot be read; `column` counts from 1."""

    def __init__(self, text: str, column: int, what: str) -> None:
        """Say where and what."""
        super().__init__(f"condition {text!r}, column {column}: {what}")
        self.column = column


@dataclass(frozen=True, slots=True)
class Condition:
    """Two programs for the engine: `match` says which exits count, `when` at which counts to stop.

    `reasons` is a bitmap of the exit reasons that `match` can hold for.
    """

    text: str
    match: Code
    when: Code
    reasons: int

    def stops_at(self, count: int) -> bool:
        """Whether `when` holds at a count: what the engine does with it."""
        return _evaluate(self.when, lambda _place: count)

    def holds_for(self, vmexit: Exit) -> bool:
        """Whether `match` holds for an exit of the past, of which only the record is known.

        Raises UsageError if it asks for registers or VMCS fields.
        """
        record = vmexit.words()

        def load(place: int) -> int:
            if place == REASON:
                return vmexit.reason
            if place >= len(record):
                raise UsageError(f"{self.text!r} asks for registers: of past exits only the "
                                 "reason, qualification, gpa, gla and rip are kept")  # fmt: skip
            return record[place]

        return bool(self.reasons >> vmexit.reason & 1) and _evaluate(self.match, load)

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Raises ConditionError, one line with the column."""
        return _Parser(text).condition()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    column: int


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of a condition: its program, the reasons for which it may hold; has it `n` in it?"""

    code: Code
    reasons: int
    counts: bool = False


def _evaluate(code: Code, load: Callable[[int], int]) -> bool:
    """What cext/stopexit.c does."""
    stack: list[int] = []
    for op, argument in zip(code[::2], code[1::2], strict=True):
        if op in (CONST, LOAD):
            stack.append(argument if op == CONST else load(argument))
        elif op == EXTRACT:
            stack[-1] = stack[-1] >> (argument & 63) & (1 << (argument >> 8)) - 1
        elif op == NOT:
            stack[-1] = int(not stack[-1])
        elif op == WITHIN:
            value, low, high = stack[-3:]
            stack[-3:] = [int(low <= value < high)]
        else:
            first, second = stack[-2:]
            stack[-2:] = [int(_PYTHON[op](first, second))]
    return not stack or bool(stack[0])


class _Parser:
    """Recursive descent, one function a rule."""

    def __init__(self, text: str) -> None:
        self._text: Final = text
        self._tokens: Final = _tokens(text)
        self._at = 0
        self._depth = 0

    def condition(self) -> Condition:
        match, when = self._alternatives()
        if self._token.kind != "end":
            raise self._error(f"{self._token.text!r} is too much; join conditions with & or |")
        return Condition(self._text, match.code, when, match.reasons)

    # ---- rules ----

    def _alternatives(self) -> tuple[_Part, Code]:
        """The whole: and-ed parts with `n` are told from the others if there is no '|' outside."""
        parts, mark = [self._conjunction()], self._token
        while self._takes("|"):
            parts.append(self._conjunction())
        if len(parts) == 1:
            return _split(parts[0])
        if any(part.counts for group in parts for part in group):
            raise self._error("n counts what the rest holds for: write (...) & n>=3", mark)
        return _join(OR, [_join(AND, group) for group in parts]), ()

    def _conjunction(self) -> list[_Part]:
        parts = [self._term()]
        while self._takes("&"):
            parts.append(self._term())
        return parts

    def _term(self) -> _Part:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._error("too many brackets within each other; write it with fewer")
        part = self._bare_term()
        self._depth -= 1
        return part

    def _bare_term(self) -> _Part:
        mark = self._token
        if self._takes("!"):
            part = self._term()
            if part.counts:
                raise self._error("n cannot stand behind '!'; turn the comparison round", mark)
            return _Part((*part.code, NOT, 0), ALL)
        if self._takes("("):
            part, when = self._alternatives()
            if when:
                raise self._error("n cannot stand in brackets; write (...) & n>=3", mark)
            if not self._takes(")"):
                raise self._error("a bracket is not closed; write )")
            return part
        return self._comparison()

    def _comparison(self) -> _Part:
        token = self._token
        if token.kind != "name":
            what = f"{token.text!r} is no name" if token.text else "something is missing here"
            raise self._error(f"{what}; write NAME, NAME=VALUE or NAME in A..B")
        sources = operands().get(token.text.lower())
        if sources is None:
            if self._is_reason(token):
                raise self._error(f"{token.text} is a reason; write reason={token.text}")
            raise self._unknown(token, "name", list(operands()))
        self._at += 1
        test = self._test()
        if token.text.lower() == "bytes":  # coded as one less
            test = _one_less(test)
        code = [_source_code(source, test) for source in sources]
        reasons = 0
        for source in sources:
            reasons |= source.reasons
        part = _join(OR, [_Part(c, s.reasons) for c, s in zip(code, sources, strict=True)])
        return _Part(part.code, reasons, sources[0].place == COUNT)

    def _test(self) -> Code:
        """The rest of a comparison: what is done with the value on the stack."""
        sign = self._token
        if sign.kind == "name" and sign.text.lower() == "in":
            self._at += 1
            low = self._value()
            mark = self._token
            if not self._takes(".."):
                raise self._error("a range is written A..B")
            high = self._value()
            if high <= low:
                raise self._error(f"the range {low:#x}..{high:#x} holds nothing", mark)
            return (CONST, low, CONST, high, WITHIN, 0)
        if sign.text in _COMPARISONS:
            self._at += 1
            return (CONST, self._value(), _COMPARISONS[sign.text], 0)
        return (CONST, 0, NE, 0)

    def _value(self) -> int:
        token = self._token
        if token.kind == "number":
            self._at += 1
            value = int(token.text, 0) if token.text[:2] in ("0x", "0X") else int(token.text)
            if value >> 64:
                raise self._error(f"{token.text} has more than 64 bits", token)
            return value
        if token.kind == "name" and self._is_reason(token):
            self._at += 1
            return _REASONS[token.text.upper()]
        if token.kind == "name":
            raise self._unknown(token, "exit reason", _REASONS)
        raise self._error("a number or the name of an exit reason is missing here")

    # ---- tokens ----

    @property
    def _token(self) -> _Token:
        return self._tokens[self._at]

    def _takes(self, sign: str) -> bool:
        text = self._token.text
        if _WORDS.get(text.lower(), text) != sign or self._token.kind == "end":
            return False
        self._at += 1
        return True

    @staticmethod
    def _is_reason(token: _Token) -> bool:
        return token.text.upper() in _REASONS

    def _unknown(self, token: _Token, kind: str, known: object) -> ConditionError:
        names = list(known)  # type: ignore[call-overload]
        near = get_close_matches(token.text.lower(), [n.lower() for n in names], 1)
        like = [n for n in names if near and n.lower() == near[0]]
        hint = f"; did you mean {like[0]}?" if like else "; `help conditions` lists them"
        return self._error(f"there is no {kind} {token.text!r}{hint}", token)

    def _error(self, what: str, token: _Token | None = None) -> ConditionError:
        return ConditionError(self._text, (token or self._token).column, what)


def _tokens(text: str) -> list[_Token]:
    found, at = [], 0
    while match := _TOKEN.match(text, at):
        kind = match.lastgroup or ""
        if kind == "bad":
            raise ConditionError(text, match.start(kind) + 1, f"{match[kind]!r} means nothing here")
        found.append(_Token(kind, match[kind], match.start(kind) + 1))
        at = match.end()
    return [*found, _Token("end", "", len(text.rstrip()) + 1)]


def _split(parts: list[_Part]) -> tuple[_Part, Code]:
    counted = [part for part in parts if part.counts]
    rest = [part for part in parts if not part.counts]
    return _join(AND, rest), _join(AND, counted).code if counted else ()


def _join(op: int, parts: list[_Part]) -> _Part:
    if not parts:
        return _Part((), ALL)
    code, reasons = parts[0].code, parts[0].reasons
    for part in parts[1:]:
        code = (*code, *part.code, op, 0)
        reasons = reasons & part.reasons if op == AND else reasons | part.reasons
    return _Part(code, reasons)


def _one_less(test: Code) -> Code:
    pairs = zip(test[::2], test[1::2], strict=True)
    return tuple(word for op, x in pairs for word in (op, max(0, x - 1) if op == CONST else x))


def _source_code(source: Source, test: Code) -> Code:
    """A comparison of one source, false for exits of other reasons."""
    if source.constant is not None:
        value: Code = (CONST, source.constant)
    else:
        value = (LOAD, source.place)
        if (source.shift, source.width) != (0, 64):
            value = (*value, EXTRACT, source.shift | source.width << 8)
        if source.inverted:
            value = (*value, NOT, 0)
    code = (*value, *test)
    if source.reasons == ALL:
        return code
    reasons = [n for n in range(REASONS) if source.reasons >> n & 1]
    for number, reason in enumerate(reasons):
        code = (*code, LOAD, REASON, CONST, reason, EQ, 0)
        code = (*code, OR, 0) if number else code
    return (*code, AND, 0)
