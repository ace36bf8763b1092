"""The symbols that a Linux image carries for its own messages: CONFIG_KALLSYMS.

Distributions strip vmlinux, but its read-only data hold every function's address and name. No
symbol says where, so the tables are found by their form (Linux, scripts/kallsyms.c):

- token_table: 256 strings that end in a zero byte; those of the digits are the digits themselves;
- token_index: the offset of each string in it, 256 16-bit words;
- names: for each symbol a length (one byte; from 6.1 on two, if the first has bit 7 set) and as
  many tokens; the first letter of the text is the type that nm prints;
- markers: the offset in `names` of every 256th symbol, 32-bit words; in some versions three bytes a
  symbol, seqs_of_names, stand between them and token_table;
- num_syms: a 32-bit word before `names`;
- offsets: one signed 32-bit word a symbol, and relative_base, a 64-bit word behind them. These
  two come before num_syms up to Linux 6.3, behind token_index later.

All begin at multiples of eight.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from vmm.symbols.table import Symbol

_DIGITS: Final = b"".join(bytes((digit, 0)) for digit in b"0123456789")
_TOKENS: Final = 256
_CHUNK: Final = 256
_INDEX_BYTES: Final = 2 * _TOKENS
_TABLE_BYTES_MAX: Final = 1 << 14
_SYMBOLS_MAX: Final = 1 << 20
_KERNEL_HALF: Final = 0xFFFF_8000_0000_0000
_MASK64: Final = (1 << 64) - 1
_CODE: Final = frozenset("tTwW")
_NAME_MAX: Final = 512
"""KSYM_NAME_LEN: the most tokens of a name."""
_WORD: Final = struct.Struct("<I")
Markers = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Tokens:
    """The two tables of abbreviations, and where they stand in the image."""

    start: int
    end: int
    text: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Names:
    """The compressed names: where `num_syms` stands, where the names begin, how many they are."""

    count_at: int
    start: int
    count: int


def read_kallsyms(image: bytes) -> list[Symbol] | None:
    """Return the symbols inside an unpacked kernel, by address; None if it has none."""
    for tokens in _find_tokens(image):
        for names in _find_names(image, tokens):
            addresses = _addresses(image, tokens, names)
            if addresses is not None:
                return _symbols(_expand(image, tokens, names), addresses)
    return None


def _find_tokens(image: bytes) -> Iterator[_Tokens]:
    """Yield what looks like the token table with its index."""
    digits = image.find(_DIGITS)
    while digits >= 0:
        for start in range(digits & ~7, max(digits - _TABLE_BYTES_MAX, -1), -8):
            tokens = _read_tokens(image, start)
            if tokens is not None and tokens.text[ord("0") : ord("9") + 1] == _digit_texts():
                yield tokens
        digits = image.find(_DIGITS, digits + 1)


def _digit_texts() -> tuple[bytes, ...]:
    return tuple(bytes((digit,)) for digit in b"0123456789")


def _read_tokens(image: bytes, start: int) -> _Tokens | None:
    """Read a table at `start`, if it is one: the index behind it must agree."""
    texts = image[start : start + _TABLE_BYTES_MAX].split(b"\0", _TOKENS)[:_TOKENS]
    if len(texts) < _TOKENS or not all(texts[ord("0") : ord("9") + 1]):
        return None
    offsets, at = [], 0
    for text in texts:
        offsets.append(at)
        at += len(text) + 1
    index_at = start + at + 7 & ~7
    if at > 0xFFFF or image[index_at : index_at + _INDEX_BYTES] != struct.pack("<256H", *offsets):
        return None
    return _Tokens(start, index_at + _INDEX_BYTES, tuple(texts))


def _find_names(image: bytes, tokens: _Tokens) -> Iterator[_Names]:
    """Go back from the token table over the markers to the count of symbols before the names."""
    for start, markers in _find_markers(image, tokens):
        most = len(markers) * _CHUNK
        last = start - markers[-1]  # the last run of names, of at most 256, lies behind it
        for at in range(last & ~7, max(last - _CHUNK * _NAME_MAX, 0), -8):
            (count,) = _WORD.unpack_from(image, at)
            if most - _CHUNK < count <= most and _chunks_agree(image, at + 8, markers):
                yield _Names(at, at + 8, count)


def _find_markers(image: bytes, tokens: _Tokens) -> Iterator[tuple[int, Markers]]:
    """Yield where the markers may begin, and what they are.

    They stand right before the tokens, or with seqs_of_names between, three bytes a symbol.
    """
    yield from _markers(image, tokens.start)
    for end in range(tokens.start - 8 & ~7, max(tokens.start - 3 * _SYMBOLS_MAX, 8), -8):
        for start, markers in _markers(image, end):
            between, most = tokens.start - end, 3 * _CHUNK * len(markers)
            if most - 3 * _CHUNK < between <= most + 7:
                yield start, markers


def _markers(image: bytes, end: int) -> Iterator[tuple[int, Markers]]:
    """Yield rising words, the first of them 0, that end at `end` or one word of padding before."""
    for last in (end, end - 4):
        at, above = last - 4, 1 << 32
        while at >= 0:
            (word,) = _WORD.unpack_from(image, at)
            if word >= above:
                break
            above = word
            if word == 0:
                count = (last - at) // 4
                if 1 < count <= _SYMBOLS_MAX // _CHUNK:
                    yield at, struct.unpack_from(f"<{count}I", image, at)
                break
            at -= 4


def _length(image: bytes, at: int) -> tuple[int, int]:
    """Return how many tokens the name at `at` has, and where they begin."""
    first = image[at]
    if first & 0x80:
        return first & 0x7F | image[at + 1] << 7, at + 2
    return first, at + 1


def _chunks_agree(image: bytes, start: int, markers: tuple[int, ...]) -> bool:
    """Whether every run of 256 names ends where its marker says."""
    at = start
    for marker in markers[1:]:
        for _ in range(_CHUNK):
            if at + 1 >= len(image):
                return False
            size, at = _length(image, at)
            if size == 0:
                return False
            at += size
        if at - start != marker:
            return False
    return True


def _expand(image: bytes, tokens: _Tokens, names: _Names) -> Iterator[str]:
    """Yield each name with its type letter before it."""
    at, text = names.start, tokens.text
    for _ in range(names.count):
        size, at = _length(image, at)
        yield b"".join(text[token] for token in image[at : at + size]).decode("latin-1")
        at += size


def _addresses(image: bytes, tokens: _Tokens, names: _Names) -> list[int] | None:
    """Return the addresses, wherever this version of Linux keeps them; None if nowhere."""
    size = 4 * names.count
    behind = tokens.end + 7 & ~7
    after = behind + size + 7 & ~7
    base_at = names.count_at - 8
    for offsets_at, base in ((base_at - size & ~7, base_at), (behind, after)):
        if offsets_at < 0 or base + 8 > len(image) or offsets_at + size > len(image):
            continue
        (relative,) = struct.unpack_from("<Q", image, base)
        offsets = struct.unpack_from(f"<{names.count}i", image, offsets_at)
        addresses = _resolve(offsets, relative)
        if addresses is not None:
            return addresses
    return None


def _resolve(offsets: tuple[int, ...], relative: int) -> list[int] | None:
    """Undo CONFIG_KALLSYMS_BASE_RELATIVE, in the form for per-CPU symbols and without it."""
    if relative < _KERNEL_HALF:
        return None
    if any(offset < 0 for offset in offsets):  # CONFIG_KALLSYMS_ABSOLUTE_PERCPU
        signed = [o if o >= 0 else relative - 1 - o for o in offsets]
        if signed == sorted(signed):
            return signed
    plain = [relative + (offset & 0xFFFF_FFFF) & _MASK64 for offset in offsets]
    return plain if plain == sorted(plain) else None


def _symbols(names: Iterator[str], addresses: list[int]) -> list[Symbol]:
    found = [
        Symbol(name[1:], address, 0, name[0] in _CODE)
        for name, address in zip(names, addresses, strict=True)
        if len(name) > 1
    ]
    return [symbol for symbol in found if symbol.address >= _KERNEL_HALF]
