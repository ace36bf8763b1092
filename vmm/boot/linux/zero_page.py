"""The zero page, struct boot_params (Linux, "The Linux/x86 Boot Protocol" and zero-page.rst)."""

import struct
from typing import Final

from vmm.boot.layout import PAGE, Layout
from vmm.boot.linux.header import HEADER_START, LoadFlags, SetupHeader
from vmm.boot.linux.initrd import Initrd
from vmm.boot.memmap import regions
from vmm.boot.request import BootRequest, guest_text
from vmm.errors import UsageError

E820_AT, E820_MOST = 0x2D0, 128
_E820: Final = struct.Struct("<QQI")
_LOADER: Final = 0xFF  # type_of_loader: none that has a number
_NORMAL_VIDEO: Final = 0xFFFF
_RSDP_SINCE: Final = 0x20E


def check_cmdline(cmdline: str, most: int) -> bytes:
    """Return the text for the guest; refuse more than ``most`` bytes, without the final zero."""
    text = guest_text(cmdline)
    if len(text) > most:
        raise UsageError(
            f"--cmdline has {len(text)} bytes and this kernel takes {most}; shorten it"
        )
    return text


def load_zero_page(
    layout: Layout, request: BootRequest, header: SetupHeader, initrd: Initrd, *, kaslr: bool
) -> int:
    """Place command line and zero page; return the page's address."""
    text = check_cmdline(request.cmdline, header.cmdline_size)
    cmdline = layout.put(text + b"\0", "command line")
    page = _zero_page(request, header, initrd, cmdline, kaslr=kaslr)
    return layout.put(page, "zero page", align=PAGE)


def _zero_page(
    request: BootRequest, header: SetupHeader, initrd: Initrd, cmdline: int, *, kaslr: bool
) -> bytes:
    page = bytearray(PAGE)
    page[HEADER_START : HEADER_START + len(header.raw)] = header.raw
    flags = header.loadflags | (LoadFlags.KASLR_FLAG if kaslr else 0)
    fields = [  # offset, format, value
        (0x0C0, "<I", initrd.start >> 32),  # ext_ramdisk_image
        (0x0C4, "<I", initrd.size >> 32),  # ext_ramdisk_size
        (0x1FA, "<H", _NORMAL_VIDEO),  # vid_mode
        (0x210, "<B", _LOADER),  # type_of_loader
        (0x211, "<B", flags),  # loadflags
        (0x218, "<I", initrd.start & 0xFFFF_FFFF),  # ramdisk_image
        (0x21C, "<I", initrd.size & 0xFFFF_FFFF),  # ramdisk_size
        (0x228, "<I", cmdline),  # cmd_line_ptr
    ]
    if header.version >= _RSDP_SINCE:
        fields.append((0x070, "<Q", request.rsdp))  # acpi_rsdp_addr
    if request.screen:
        fields += _SCREEN
    areas = regions(request.memory)
    assert len(areas) <= E820_MOST
    fields.append((0x1E8, "<B", len(areas)))  # e820_entries
    for at, form, value in fields:
        struct.pack_into(form, page, at, value)
    for index, area in enumerate(areas):
        at = E820_AT + index * _E820.size
        _E820.pack_into(page, at, area.start, area.size, area.type)
    return bytes(page)


_SCREEN: Final = [  # struct screen_info: VGA text, 80 columns of 25 lines
    (0x006, "<B", 3),  # orig_video_mode
    (0x007, "<B", 80),  # orig_video_cols
    (0x00E, "<B", 25),  # orig_video_lines
    (0x00F, "<B", 1),  # orig_video_isVGA: VIDEO_TYPE_VGAC with a colour adapter
    (0x010, "<H", 16),  # orig_video_points
]
