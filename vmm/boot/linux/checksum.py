"""The checksum of a whole bzImage, for payloads that have none of their own (lz4, lzma).

Linux, "The Linux/x86 Boot Protocol", "The Image Checksum": from protocol 2.08 to Linux 6.14 the
file ends, where `syssize` says, with what makes the CRC-32 (remainder and initial remainder of all
ones) zero. Distributions sign the file for Secure Boot afterwards, which fills in two fields of
its PE header ("Optional Header": CheckSum, Certificate Table) and appends the certificate: before
the sum they are made zero again.
"""

import re
import struct
import zlib
from typing import Final

from vmm.boot.linux.header import SetupHeader

_SINCE: Final = 0x208
_DROPPED: Final = (6, 15)  # "x86/boot: Drop CRC-32 checksum and the build tool that generates it"
_VERSION_BASE: Final = 0x200  # kernel_version counts from the second sector
_PARAGRAPH: Final = 16
_PE_AT: Final = 0x3C
_OPTIONAL_HEADER: Final = 24
_CHECKSUM: Final = (64, 4)
_CERTIFICATES: Final = {0x10B: (128, 8), 0x20B: (144, 8)}  # PE32, PE32+
_GOOD: Final = 0xFFFF_FFFF  # zlib complements: this is the zero of the protocol's CRC


def is_damaged(data: bytes, header: SetupHeader) -> bool:
    """Whether a bzImage has a checksum, and another content than when it was computed."""
    if header.version < _SINCE or not _has_checksum(data, header):
        return False
    size = header.code_at + header.syssize * _PARAGRAPH
    return zlib.crc32(_unsigned(data[:size])) != _GOOD


def _has_checksum(data: bytes, header: SetupHeader) -> bool:
    """Whether the kernel's own version string names one that was built with a checksum."""
    at = _VERSION_BASE + header.kernel_version
    found = re.match(rb"(\d+)\.(\d+)", data[at : at + 16]) if header.kernel_version else None
    return found is not None and (int(found[1]), int(found[2])) < _DROPPED


def _unsigned(data: bytes) -> bytes:
    """Return the image as it was before it was signed."""
    (pe,) = struct.unpack_from("<I", data, _PE_AT)
    if not data.startswith(b"MZ") or data[pe : pe + 4] != b"PE\0\0":
        return data
    image, optional = bytearray(data), pe + _OPTIONAL_HEADER
    (magic,) = struct.unpack_from("<H", image, optional)
    for offset, size in (_CHECKSUM, _CERTIFICATES.get(magic, (0, 0))):
        image[optional + offset : optional + offset + size] = bytes(size)
    return bytes(image)
