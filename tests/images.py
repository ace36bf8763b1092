"""Small guest images from assembly: an ELF64 that starts in long mode, mapped one to one."""

import struct

from tests.bare import assemble

START = 0x10_0000
OFF = "cli; hlt"
EXIT = "mov dx, 0xf4; out dx, eax"  # with the value in EAX


def elf64(text: str, at: int = START) -> bytes:
    """System V ABI, "ELF Header" and "Program Header": one segment, entered at its start."""
    code = assemble(text, at)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, at, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 7, 120, at, at, len(code), len(code), 4096)
    return ident + head + segment + code


def real16(text: str) -> bytes:
    """A flat image: real mode at 0:0x7c00."""
    return assemble(text, 0x7C00, 16)
