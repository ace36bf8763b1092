"""The setup header of a bzImage (Linux, "The Linux/x86 Boot Protocol", "The Real-Mode Kernel
Header"): offsets are those of the file and of the zero page alike.
"""

import struct
from dataclasses import dataclass
from enum import IntFlag
from typing import Final

from vmm.errors import UsageError

SECTOR: Final = 512
HEADER_START: Final = 0x1F1
_MAGIC_AT: Final = 0x202
_OLDEST: Final = 0x206  # cmdline_size; everything since Linux 2.6.22
_DEFAULT_SETUP_SECTORS: Final = 4  # what setup_sects = 0 means
_PARAGRAPH: Final = 16


class LoadFlags(IntFlag):
    """The bits of loadflags."""

    LOADED_HIGH = 1 << 0
    KASLR_FLAG = 1 << 1


class XLoadFlags(IntFlag):
    """The bits of xloadflags."""

    KERNEL_64 = 1 << 0
    CAN_BE_LOADED_ABOVE_4G = 1 << 1


# name: offset, format, the protocol version that brought it, value before
_FIELDS: Final = {
    "setup_sects": (0x1F1, "<B", 0x200, 0),
    "syssize": (0x1F4, "<I", 0x204, 0),
    "kernel_version": (0x20E, "<H", 0x200, 0),
    "loadflags": (0x211, "<B", 0x200, 0),
    "code32_start": (0x214, "<I", 0x200, 0x100000),
    "initrd_addr_max": (0x22C, "<I", 0x203, 0x37FFFFFF),
    "kernel_alignment": (0x230, "<I", 0x205, 0),
    "relocatable": (0x234, "<B", 0x205, 0),
    "xloadflags": (0x236, "<H", 0x20C, 0),
    "cmdline_size": (0x238, "<I", 0x206, 255),
    "payload_offset": (0x248, "<I", 0x208, 0),
    "payload_length": (0x24C, "<I", 0x208, 0),
    "pref_address": (0x258, "<Q", 0x20A, 0),
    "init_size": (0x260, "<I", 0x20A, 0),
}


@dataclass(frozen=True, slots=True)
class SetupHeader:
    """The header's fields by their names in the protocol; ``raw`` is what the zero page gets."""

    raw: bytes
    version: int
    setup_sects: int
    syssize: int
    kernel_version: int
    loadflags: int
    code32_start: int
    initrd_addr_max: int
    kernel_alignment: int
    relocatable: int
    xloadflags: int
    cmdline_size: int
    payload_offset: int
    payload_length: int
    pref_address: int
    init_size: int

    @property
    def code_at(self) -> int:
        """Return the file offset of the protected-mode code: behind the boot and setup sectors."""
        return (1 + (self.setup_sects or _DEFAULT_SETUP_SECTORS)) * SECTOR

    @property
    def is_64bit(self) -> bool:
        """Whether the kernel has the 64-bit entry at 0x200 of its protected-mode code."""
        return bool(self.xloadflags & XLoadFlags.KERNEL_64)

    @property
    def load_address(self) -> int:
        """Return where the kernel would like its protected-mode code."""
        return (self.relocatable and self.pref_address) or self.code32_start


def is_bzimage(data: bytes) -> bool:
    """Whether ``data`` has the mark of the boot protocol."""
    return data[_MAGIC_AT : _MAGIC_AT + 4] == b"HdrS"


def parse_header(data: bytes) -> SetupHeader:
    """Read the header; UsageError for an old protocol, a zImage or a truncated file."""
    end = _MAGIC_AT + data[0x201]  # the header ends where its first jump lands
    if len(data) < max(end, 0x264):
        raise UsageError(
            f"the bzImage is truncated within its header ({len(data)} bytes); copy it again"
        )
    (version,) = struct.unpack_from("<H", data, 0x206)
    if version < _OLDEST:
        raise UsageError(
            f"the bzImage has boot protocol {version >> 8}.{version & 255:02}; "
            "give a kernel with 2.06 or later (Linux 2.6.22)"
        )
    values = {
        name: struct.unpack_from(form, data, at)[0] if version >= since and at < end else before
        for name, (at, form, since, before) in _FIELDS.items()
    }
    header = SetupHeader(data[HEADER_START:end], version, **values)
    if not header.loadflags & LoadFlags.LOADED_HIGH:
        raise UsageError("the image is a zImage, which loads below 1M; build a bzImage")
    _refuse_truncated(header, len(data))
    return header


def _refuse_truncated(header: SetupHeader, size: int) -> None:
    """Some builders round syssize up without padding the file: one paragraph may be missing."""
    code_size = max(header.syssize * _PARAGRAPH - (_PARAGRAPH - 1), 1)
    packed = header.payload_offset + header.payload_length
    if (needed := header.code_at + max(code_size, packed)) > size:
        raise UsageError(
            f"the bzImage is truncated: its header asks for {needed} bytes of a file of {size}; "
            "copy it again"
        )
