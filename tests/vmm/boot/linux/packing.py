"""Payloads as the kernel's own build packs them (Linux, scripts/Makefile.lib, cmd_gzip ...)."""

import bz2
import gzip
import lzma
import struct
from typing import Any

import lz4.block
import zstandard

FORMATS = ("gzip", "xz", "lzma", "bzip2", "lz4", "zstd")
_XZ = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 32 << 20}]


def packed(content: bytes, how: str) -> bytes:
    """Return ``content`` compressed, with its size behind it (gzip has that by itself)."""
    squeezed: bytes = _PACK[how](content)
    return squeezed + (b"" if how == "gzip" else struct.pack("<I", len(content)))


def _lz4(content: bytes) -> bytes:
    """`lz4 -l`: the magic number, then blocks of 8 MiB behind their packed sizes."""
    blocks = [content[at : at + (8 << 20)] for at in range(0, len(content), 8 << 20)]
    squeezed = [lz4.block.compress(block, store_size=False) for block in blocks]
    return b"\x02\x21\x4c\x18" + b"".join(
        struct.pack("<I", len(block)) + block for block in squeezed
    )


_PACK: dict[str, Any] = {
    "gzip": lambda content: gzip.compress(content, mtime=0),
    "xz": lambda content: lzma.compress(
        content, lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=_XZ
    ),
    "lzma": lambda content: lzma.compress(content, lzma.FORMAT_ALONE, preset=0),
    "bzip2": bz2.compress,
    "lz4": _lz4,
    "zstd": lambda content: zstandard.ZstdCompressor(
        write_content_size=False, write_checksum=True
    ).compress(content),
}
