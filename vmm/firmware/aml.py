"""ACPI Machine Language, written down as nested calls that return bytes (ACPI 6.4, "ACPI Machine
Language (AML) Specification").

    device("COM1", name("_HID", eisa_id("PNP0501")), name("_CRS", resources(ports(0x3F8, 8))))

An argument that is an int is encoded as the shortest integer, a str as a string, bytes are AML.
"""

from typing import Final

Term = int | str | bytes

_ZERO, _ONE, _ONES = 0x00, 0x01, 0xFF
_NAME, _BYTE, _WORD, _DWORD, _STRING, _QWORD = 0x08, 0x0A, 0x0B, 0x0C, 0x0D, 0x0E
_SCOPE, _BUFFER, _PACKAGE, _METHOD = 0x10, 0x11, 0x12, 0x14
_DUAL_PREFIX, _MULTI_PREFIX, _ROOT = 0x2E, 0x2F, 0x5C
_EXTENDED: Final = 0x5B
_DEVICE: Final = 0x82  # behind _EXTENDED
_STORE, _IF, _ELSE, _RETURN = 0x70, 0xA0, 0xA1, 0xA4
_ARG0: Final = 0x68


def term(value: Term) -> bytes:
    """Encode one argument ("Data Objects Encoding")."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return bytes([_STRING]) + value.encode("ascii") + b"\0"
    if value in (0, 1):
        return bytes([value])
    for limit, prefix, size in ((8, _BYTE, 1), (16, _WORD, 2), (32, _DWORD, 4), (64, _QWORD, 8)):
        if value < 1 << limit:
            return bytes([prefix]) + value.to_bytes(size, "little")
    raise AssertionError(f"{value:#x} is no AML integer")


def path(text: str) -> bytes:
    r"""Encode a name: "COM1", "\_SB", "_SB.PCI0" ("Name Objects Encoding")."""
    root = b"\\" if text.startswith("\\") else b""
    parts = text.lstrip("\\").split(".")
    segments = b"".join(part.ljust(4, "_").encode("ascii") for part in parts)
    assert all(1 <= len(part) <= 4 for part in parts), text
    if len(parts) == 1:
        return root + segments
    prefix = bytes([_DUAL_PREFIX]) if len(parts) == 2 else bytes([_MULTI_PREFIX, len(parts)])
    return root + prefix + segments


def name(called: str, value: Term) -> bytes:
    """Name(called, value)."""
    return bytes([_NAME]) + path(called) + term(value)


def scope(called: str, *terms: bytes) -> bytes:
    """Scope(called) { terms }."""
    return bytes([_SCOPE]) + _packed(path(called) + b"".join(terms))


def device(called: str, *terms: bytes) -> bytes:
    """Device(called) { terms }."""
    return bytes([_EXTENDED, _DEVICE]) + _packed(path(called) + b"".join(terms))


def method(called: str, arguments: int, *terms: bytes) -> bytes:
    """Method(called, arguments, NotSerialized) { terms }."""
    return bytes([_METHOD]) + _packed(path(called) + bytes([arguments]) + b"".join(terms))


def package(*elements: Term) -> bytes:
    """Package { elements }."""
    assert len(elements) < 256
    body = b"".join(term(element) for element in elements)
    return bytes([_PACKAGE]) + _packed(bytes([len(elements)]) + body)


def buffer(data: bytes) -> bytes:
    """Buffer { data }."""
    return bytes([_BUFFER]) + _packed(term(len(data)) + data)


def argument(number: int) -> bytes:
    """Arg0 ... Arg6."""
    return bytes([_ARG0 + number])


def store(value: Term, target: str) -> bytes:
    """Store(value, target)."""
    return bytes([_STORE]) + term(value) + path(target)


def returns(value: Term) -> bytes:
    """Return(value)."""
    return bytes([_RETURN]) + term(value)


def if_else(condition: Term, then: bytes, otherwise: bytes) -> bytes:
    """If(condition) { then } Else { otherwise }."""
    head = bytes([_IF]) + _packed(term(condition) + then)
    return head + bytes([_ELSE]) + _packed(otherwise)


def eisa_id(text: str) -> bytes:
    """EisaId("PNP0501"): three letters in 5 bits each, four hexadecimal digits, big-endian."""
    letters, digits = text[:3], text[3:]
    assert len(text) == 7, text
    assert letters.isalpha(), text
    number = 0
    for letter in letters:
        number = number << 5 | ord(letter) - 0x40
    packed = number << 16 | int(digits, 16)
    return bytes([_DWORD]) + packed.to_bytes(4, "big")


def _packed(body: bytes) -> bytes:
    """Put the length, which counts its own bytes, before `body` ("Package Length Encoding")."""
    if len(body) + 1 < 1 << 6:
        return bytes([len(body) + 1]) + body
    for extra in (1, 2, 3):
        length = len(body) + 1 + extra
        if length < 1 << 4 + 8 * extra:
            return (
                bytes([extra << 6 | length & 15]) + (length >> 4).to_bytes(extra, "little") + body
            )
    raise AssertionError("a package of 256 MiB")
