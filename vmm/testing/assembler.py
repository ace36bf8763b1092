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

_COMMENT: Final = re.compile(r"(?:#|//).*")
_LABEL: Final = re.compile(r"^\s*(?:[A-Za-z_.$][\w.$]*|\d+)\s*:", re.MULTILINE)


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
    plain = _COMMENT.sub("", text)
    if _LABEL.search(plain):
        return _whole(plain, at, bits)
    code = b""
    for line in plain.splitlines():
        for part in line.split(";"):
            if part.strip():
                code += _line(part.strip(), at + len(code), bits)
    return code


@lru_cache(maxsize=1 << 16)
def _line(line: str, at: int, bits: int) -> bytes:
    made = expand(line, at, bits, _plain)
    return _plain(line, at, bits) if made is None else made


def _plain(line: str, at: int, bits: int) -> bytes:
    code = _keystone(line, at, bits, line)
    if not code:
        raise AssemblyError(f"{line!r} does not assemble in {bits}-bit code: it makes no bytes")
    return code


def _whole(text: str, at: int, bits: int) -> bytes:
    """Assemble text with labels; where that fails, find the line that is to blame."""
    lines = [_as_bytes(line, bits) for line in text.splitlines()]
    try:
        return _keystone("\n".join(lines), at, bits, text.strip())
    except AssemblyError as error:
        for number in range(1, len(lines) + 1):
            _blame(lines[:number], text.splitlines()[number - 1], at, bits)
        raise error from None


def _as_bytes(line: str, bits: int) -> str:
    label, colon, rest = line.rpartition(":") if _LABEL.match(line) else ("", "", line)
    made = expand(rest.strip(), 0, bits, _plain) if rest.strip() else None
    if made is None:
        return line
    return label + colon + " .byte " + ", ".join(map(str, made))


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
