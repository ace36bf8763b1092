"""Assembly to bytes: keystone line by line, cached, its gaps filled by our macros.

Line by line, so that a mistake is reported with its line, and a test that differs from another in
one line pays for that line. Labels make lines depend on each other: text with a label is assembled
as a whole (macros stand in it as `.byte`).
"""

import re
from functools import cache, lru_cache
from typing import Any, Final

from vmm.errors import UsageError
from vmm.testing.macros import expand
from vmm.testing.meaning import objection, relative

_COMMENT: Final = re.compile(r"(?:#|//).*")
_LABEL: Final = re.compile(r"^\s*(?:[A-Za-z_.$][\w.$]*|\d+)\s*:", re.MULTILINE)
_CALL: Final = re.compile(r"\s*call\s+(?!e?(?:[abcd]x|[sd]i|[sb]p)\s*$)([A-Za-z_.$][\w.$]*)\s*")
_NO_BYTES: Final = "it makes no bytes (sizes are written as in dword ptr [rbx])"


class AssemblyError(UsageError):
    """A line that does not assemble: the message shows the line and keystone's reason."""


@cache
def _engine(bits: int) -> Any:
    from keystone import KS_ARCH_X86, KS_MODE_16, KS_MODE_32, KS_MODE_64, Ks  # heavy

    return Ks(KS_ARCH_X86, {16: KS_MODE_16, 32: KS_MODE_32, 64: KS_MODE_64}[bits])


@lru_cache(maxsize=1 << 16)
def assemble(text: str, at: int = 0, bits: int = 64) -> bytes:
    """Return the machine code of Intel-syntax `text`, whose first byte will lie at `at`.

    Raises AssemblyError.
    """
    plain = _COMMENT.sub("", text).replace(";", "\n")
    if _LABEL.search(plain):
        return _whole(plain, at, bits)
    code = b""
    for line in plain.splitlines():
        if line.strip():
            code += _line(line.strip(), at + len(code), bits)
    return code


@lru_cache(maxsize=1 << 16)
def _line(line: str, at: int, bits: int) -> bytes:
    made = expand(line, at, bits, _plain)
    return _plain(line, at, bits) if made is None else made


def _plain(line: str, at: int, bits: int) -> bytes:
    code = _keystone(line, at, bits, line)
    why = objection(line, code, at, bits) if code else _NO_BYTES
    if why is not None and relative(line, len(code), at) != line and bits == 64:
        second = _keystone(relative(line, len(code), at), at, bits, line)
        if objection(line, second, at, bits) is None:
            return second
    if why is not None:
        raise AssemblyError(f"{line!r} does not assemble in {bits}-bit code: {why}; correct it")
    return code


def _whole(text: str, at: int, bits: int) -> bytes:
    """Assemble text with labels; where that fails, find the line that is to blame."""
    parts = text.splitlines()
    lines = [_as_bytes(part, bits) for part in parts]
    try:
        code = _keystone("\n".join(lines), at, bits, text.strip())
        _look_through(text, bits)
        return code
    except AssemblyError as error:
        for number in range(1, len(lines) + 1):
            _blame(lines[:number], parts[number - 1], at, bits)
        raise error from None


def _look_through(text: str, bits: int) -> None:
    """Object to lines of a text with labels, as far as they stand alone."""
    for part in _LABEL.sub("", text).splitlines():
        line = part.strip()
        if not line or expand(line, 0, bits, _plain) is not None:
            continue
        try:
            code = _keystone(line, 0, bits, line)
        except AssemblyError:
            continue  # it names a label
        if why := objection(line, code, 0, bits):
            raise AssemblyError(f"{line!r} does not assemble in {bits}-bit code: {why}; correct it")


def _as_bytes(line: str, bits: int) -> str:
    named = _LABEL.match(line)
    label, rest = (line[: named.end()], line[named.end() :]) if named else ("", line)
    if bits == 16 and (found := _CALL.fullmatch(rest)):
        return f"{label} .byte 0xe8; .short {found[1]}-.-2"
    made = expand(rest.strip(), 0, bits, _plain) if rest.strip() else None
    if made is None:
        return line
    return label + " .byte " + ", ".join(map(str, made))


def _blame(lines: list[str], shown: str, at: int, bits: int) -> None:
    try:
        _keystone("\n".join(lines), at, bits, shown.strip())
    except AssemblyError as error:
        if "symbol" not in str(error).lower():  # a label further down is no mistake
            raise


def _keystone(text: str, at: int, bits: int, shown: str) -> bytes:
    from keystone import KsError

    try:
        code, _ = _engine(bits).asm(text, at, as_bytes=True)
    except KsError as error:
        raise AssemblyError(
            f"{shown!r} does not assemble in {bits}-bit code: {error.message}; "
            f"correct it, or give bytes (.byte 0x0f, 0x0b)"
        ) from None
    return bytes(code or b"")
