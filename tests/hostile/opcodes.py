"""Instruction bytes that matter to a monitor, with random operands; valid more often than not."""

from random import Random
from typing import Final

# Hexadecimal beginnings; what follows them (ModRM, displacement, immediate) is random or from ENDS.
PRIVILEGED: Final = """
0f20c0 0f20d8 0f20e0 0f20d0 0f22c0 0f22d8 0f22e0 440f22c0 440f20c0 0f21f8 0f23f8 0f23f0 0f23c0
0f30 0f32 0f33 0f0100 0f0110 0f0108 0f0118 0f0120 0f0130 0f0138 0f01f8 0f01f9 0f0000 0f0008
0f0010 0f0018 0f00d0 0f00d8 0f00c8 0f00c0 0f06 0f08 0f09 f4 fa fb fbf4 0f07 480f07 0f35 480f35 0f05
0f34 cf 48cf 66cf cb 48cb 66cb ca0000 9c 9d 669c 669d f1 cc ce cd80 cd03 cd04 cd0d cd 0f01c1 0f01d9
0f01c2 0f01d0 0f01d1 0f01ca 0f01cb 0f01d8 0f01ee 0f01ef 0fa2 0f31 0f78c0 660f3880 660f3881 660f3882
f30fc7f0 0fc7f0 0fc7f8 0fae00 0fae08 f30faec0 f3480faed0 0f0b 0fff
"""
SEGMENTS: Final = """
8ec0 8ed0 8ed8 8ee0 8ee8 8ec8 8e 8c 8cc8 8cd0 8cd8 0fa1 0fa9 0fa0 0fa8 07 17 1f 06 16 1e 0e
0fb2 0fb4 0fb5 c4 c5 ff18 ff28 ff1c24 ff2c24 48ff18 48ff28 66ff18 9a ea 0f02 0f03 0f00e0 0f00e8 63
31c08ed0 31c08ed090 b823000000 b818000000 b810000000 b81b0000008ed8
"""
PORTS: Final = (
    "ec ed ee ef e4 e5 e6 e7 6c 6d 6e 6f f36c f36d f36e f36f 66ed 66ef e660 e6f4 e420 e6a1"
)
STRINGS: Final = """
a4 a5 aa ab ac ad a6 a7 ae af f3a4 f3a5 f3aa f3ab f348a5 f348ab f3ac f2ae f3ae f3a6 f2a7 67f3a4 67aa
"""
FLOW: Final = """
eb00 ebfe ebf0 eb10 74f0 7510 7402 7504 e2f0 e2f8 e202 e0f0 e9 e8 e800000000 c3 c2 c20800 ffe0 ff20 ffd0
ff10 67e3f8 e304 0f84 0f85 72f8 7302 c8 c9 c8000000 c8100003
"""
PLAIN: Final = """
90 40 41 42 43 48ffc0 48ffc9 01c0 29d8 31ff 85c0 39c8 50 51 53 57 58 59 5b 5f 60 61 54 5c 6a00 68
8b00 8b06 8b07 8903 8906 8907 c60000 c70700000000 a0 a1 a2 a3 8d00 0f10 0f11 0f28 660f6f 0f7f f30f6f
d9 db dd df d8 9b dbe3 0fb6 0fbe 0fbf 0fb1 0fc1 f0 f00fb1 f048 f00fc70f 0fc70f 87 86 d3e0 d1e8 c1e0 f7f0
f7f9 f6f0 f7 f6 fe ff 80 81 83 0fa3 0fba 0fc8 0f38f0 98 99 9e 9f d4 d5 27 37 d7 d50a d400 f5 f8 f9 fc fd
62 0f0d 0f18 0f1f00 f390 c60500000000cc 8805 880500000000 c7058000000090909090
"""
_TABLES: Final = [
    [bytes.fromhex(text) for text in table.split()]
    for table in (PRIVILEGED, SEGMENTS, PORTS, STRINGS, FLOW, PLAIN)
]
_WEIGHTS: Final = (24, 16, 4, 7, 12, 37)
_MIXTURE: Final = [
    table for table, weight in zip(_TABLES, _WEIGHTS, strict=True) for _ in range(weight)
]
_PREFIXES: Final = bytes.fromhex("66 67 f2 f3 f0 2e 36 3e 26 64 65 48 4c 41 44 4f")
_ENDS: Final = (
    b"", b"", b"\x00", b"\xc0", b"\x03", b"\x07", b"\x06", b"\x24\x24", b"\x04\x24", b"\x45\x00",
    b"\x43\x10", b"\x47\xff", b"\xd0", b"\xd8", b"\x05\x10\x00\x00\x00", b"\x05\xf0\xff\xff\xff",
)  # fmt: skip


def instruction(random: Random) -> bytes:
    """Return the bytes of about one instruction."""
    draw = random.random  # its siblings cost five times as much, and this is called a lot
    if draw() < 0.04:
        return random.randbytes(random.randrange(1, 6))
    prefixes = b""
    while draw() < 0.12:
        prefixes += bytes((_PREFIXES[int(draw() * len(_PREFIXES))],))
    table = _MIXTURE[int(draw() * len(_MIXTURE))]
    code = prefixes + table[int(draw() * len(table))]
    if draw() < 0.4:
        code += _ENDS[int(draw() * len(_ENDS))]
    if draw() < 0.08:
        code += random.randbytes(random.randrange(1, 5))
    return code


def code(random: Random, size: int) -> bytes:
    """Return `size` bytes of code."""
    made = bytearray()
    while len(made) < size:
        made += instruction(random)
    return bytes(made[:size])


def turned(random: Random, size: int, page: int) -> bytes:
    """Return `size` bytes: one page of code, then the same begun elsewhere, again and again."""
    fresh, made = code(random, page), b""
    while len(made) < size:
        at = random.randrange(page) if made else 0
        made += fresh[at:] + fresh[:at]
    return made[:size]
