"""The compressed kernel of a bzImage, unpacked by the host's libraries.

Which format it is says the magic number (Linux, scripts/Makefile.lib and lib/decompress.c); the
last four bytes are the size of what comes out, little-endian, in every format.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vmm.errors import UsageError

_LARGEST: Final = 1 << 30  # KERNEL_IMAGE_SIZE: the kernel's window of virtual addresses
_LZ4_BLOCK: Final = 8 << 20  # of the legacy frame, lz4_Block_format.md
_LZ4_MAGIC: Final = b"\x02\x21\x4c\x18"


@dataclass(frozen=True, slots=True)
class Compression:
    """A format: its name for messages, its magic number, and (data, most bytes) -> content.

    ``checked``: whether damage shows, because there is a checksum in what the kernel's build makes.
    """

    name: str
    magic: bytes
    unpack: Callable[[bytes, int], bytes]
    checked: bool = True


def _gzip(data: bytes, most: int) -> bytes:
    import zlib

    return zlib.decompressobj(wbits=31).decompress(data, most)


def _bzip2(data: bytes, most: int) -> bytes:
    import bz2

    return bz2.BZ2Decompressor().decompress(data, most)


def _xz(data: bytes, most: int) -> bytes:
    import lzma

    return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(data, most)


def _lzma(data: bytes, most: int) -> bytes:
    import lzma

    return lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(data, most)


def _zstd(data: bytes, most: int) -> bytes:
    import zstandard

    with zstandard.ZstdDecompressor(max_window_size=1 << 31).stream_reader(data) as reader:
        return bytes(reader.read(most))


def _lz4(data: bytes, most: int) -> bytes:
    """Unpack the legacy frame: blocks behind their sizes, to the four bytes at the end."""
    import lz4.block

    parts, at, total = [], len(_LZ4_MAGIC), 0
    while at + 8 <= len(data) and total <= most:
        (size,) = struct.unpack_from("<I", data, at)
        block = data[at + 4 : at + 4 + size]
        parts.append(lz4.block.decompress(block, uncompressed_size=_LZ4_BLOCK))
        total += len(parts[-1])
        at += 4 + size
    return b"".join(parts)


FORMATS: Final = (
    Compression("gzip", b"\x1f\x8b", _gzip),
    Compression("xz", b"\xfd7zXZ\0", _xz),
    Compression("lzma", b"\x5d\0\0", _lzma, checked=False),
    Compression("bzip2", b"BZh", _bzip2),
    Compression("lz4", _LZ4_MAGIC, _lz4, checked=False),
    Compression("zstd", b"\x28\xb5\x2f\xfd", _zstd),
)


def format_of(payload: bytes) -> Compression | None:
    """Return the format of a payload, None for one that is not known here (lzo)."""
    return next((known for known in FORMATS if payload.startswith(known.magic)), None)


def unpack(payload: bytes, compression: Compression) -> bytes:
    """Return what is packed in ``payload``; UsageError if it is damaged in any way."""
    declared = int.from_bytes(payload[-4:], "little")
    damaged = f"the {compression.name}-compressed kernel inside the bzImage is damaged"
    if declared > _LARGEST:
        raise UsageError(f"{damaged}: it claims {declared} bytes; copy it again")
    try:
        content = compression.unpack(payload, declared + 1)
    except Exception as error:  # each library has its own, and some share no base
        reason = str(error).split("\n")[0].rstrip(".").lower()
        raise UsageError(f"{damaged} ({reason}); copy it again") from error
    if len(content) != declared:
        raise UsageError(f"{damaged}: {len(content)} of {declared} bytes came out; copy it again")
    return content
