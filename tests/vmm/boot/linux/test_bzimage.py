"""bzImages made by hand: the zero page read back as the boot protocol lays it out."""

import struct
import zlib
from dataclasses import replace
from typing import Any

import pytest

from tests.vmm.boot.linux.packing import FORMATS, packed
from vmm.boot.identify import plan
from vmm.boot.plan import Mode
from vmm.boot.request import BootModule, BootRequest
from vmm.config import KernelEntry
from vmm.errors import UsageError

REQUEST = BootRequest(64 << 20, "console=ttyS0 quiet", "vmlinuz")
SHIPPED = replace(REQUEST, kernel_entry=KernelEntry.DECOMPRESSOR)
USABLE = 1


def refused(data: Any, request: Any = REQUEST) -> str:
    with pytest.raises(UsageError) as caught:
        plan(data, request)
    text = str(caught.value)
    assert "\n" not in text
    assert "; " in text
    assert caught.value.status == 64
    return text


def test_the_64_bit_entry_as_shipped(forge: Any, ram: Any) -> None:
    image = forge.bzimage(packed(forge.kernel(), "gzip"))
    made = plan(image, SHIPPED)
    memory, start = ram(made), made.start
    assert (made.protocol, start.mode, start.rip) == ("bzimage", Mode.LONG64, 0x1000200)
    assert memory.read(0x1000000, 0x240) == b"\xf4" * 0x240
    assert (start.cs.selector, start.ds.selector) == (0x10, 0x18)
    code, data = memory.words(start.gdt.base + 0x10, "<QQ")
    assert (code >> 40 & 0xFF, code >> 53 & 1) == (0x9B, 1)  # execute/read, long mode
    assert data >> 40 & 0xFF == 0x93  # read/write
    pml4 = memory.words(start.cr3, "<Q")[0]
    assert pml4 & 3 == 3


@pytest.mark.parametrize("how", FORMATS)
def test_the_kernel_inside_is_unpacked(forge: Any, ram: Any, how: str) -> None:
    kernel = forge.kernel(size=9 << 20)  # more than one block of lz4
    made = plan(forge.bzimage(packed(kernel, how), init_size=10 << 20), REQUEST)
    assert (made.protocol, made.start.mode, made.start.rip) == ("linux64", Mode.LONG64, 0x1000000)
    assert ram(made).read(0x1000000, 9 << 20) == kernel[64 + 56 :][: 9 << 20]
    zero_page = made.start.gpr["rsi"]
    assert ram(made).words(zero_page + 0x211, "<B")[0] & 2 == 0  # no KASLR


def test_the_zero_page(forge: Any, ram: Any) -> None:
    image = forge.bzimage(packed(forge.kernel(), "xz"))
    for request in (REQUEST, SHIPPED):
        made = plan(image, replace(request, rsdp=0xE0000))
        memory, page = ram(made), made.start.gpr["rsi"]
        assert page % 4096 == 0
        assert memory.read(page + 0x202, 4) == b"HdrS"
        assert memory.read(page + 0x230, 0x3C) == image[0x230:0x26C]
        assert memory.read(page + 0x26C, 0x64) == bytes(0x64)  # code of the setup is not copied
        assert memory.words(page + 0x210, "<B") == (0xFF,)
        assert memory.words(page + 0x70, "<Q") == (0xE0000,)
        assert memory.text(memory.words(page + 0x228, "<I")[0]) == b"console=ttyS0 quiet"
        count = memory.words(page + 0x1E8, "<B")[0]
        rows = [memory.words(page + 0x2D0 + 20 * n, "<QQI") for n in range(count)]
        assert (0, 0x9FC00, USABLE) in rows
        assert (0x100000, 63 << 20, USABLE) in rows
        assert memory.words(page + 0x218, "<II") == (0, 0)
        assert memory.read(page, 0x20) == bytes(0x20)  # no screen


def test_a_screen_is_announced(forge: Any, ram: Any) -> None:
    made = plan(forge.bzimage(), replace(REQUEST, screen=True))
    page = ram(made).read(made.start.gpr["rsi"], 0x20)
    assert (page[6], page[7], page[0x0E], page[0x0F], page[0x10]) == (3, 80, 25, 1, 16)


def test_an_old_protocol_knows_no_rsdp(forge: Any, ram: Any) -> None:
    made = plan(forge.bzimage(version=0x20D), replace(REQUEST, rsdp=0xE0000))
    assert ram(made).words(made.start.gpr["rsi"] + 0x70, "<Q") == (0,)


def test_initrds_lie_in_a_row_and_high(forge: Any, ram: Any) -> None:
    modules = (BootModule("a", b"A" * 4097), BootModule("b", b""), BootModule("c", b"C" * 6))
    made = plan(forge.bzimage(), replace(REQUEST, modules=modules))
    memory, page = ram(made), made.start.gpr["rsi"]
    start, size = memory.words(page + 0x218, "<II")
    assert (start, size) == ((64 << 20) - 8192, 4100 + 8)
    assert memory.read(start, size) == b"A" * 4097 + bytes(3) + b"C" * 6 + bytes(2)


def test_an_initrd_stays_below_its_limit(forge: Any, ram: Any) -> None:
    modules = (BootModule("a", b"A" * 5000),)
    made = plan(forge.bzimage(initrd_max=0x37FFFFF), replace(REQUEST, modules=modules))
    start, size = ram(made).words(made.start.gpr["rsi"] + 0x218, "<II")
    assert start + size <= 0x3800000 < start + size + 4096


def test_an_initrd_above_4_gib(forge: Any, ram: Any) -> None:
    request = BootRequest(5 << 30, "", "k", (BootModule("a", b"A" * (16 << 20)),))
    made = plan(forge.bzimage(initrd_max=0x11FFFFF, xloadflags=3), request)
    memory, page = ram(made), made.start.gpr["rsi"]
    low, high = memory.words(page + 0x218, "<I")[0], memory.words(page + 0xC0, "<I")[0]
    start = high << 32 | low
    assert start == (6 << 30) - (16 << 20)
    assert memory.read(start, 4) == b"AAAA"
    assert "no room for the initrd" in refused(forge.bzimage(initrd_max=0x11FFFFF), request)


def test_a_32_bit_kernel_starts_in_protected_mode(forge: Any) -> None:
    image = forge.bzimage(xloadflags=0, relocatable=0)
    made = plan(image, REQUEST)
    assert (made.start.mode, made.start.rip) == (Mode.PROT32, 0x100000)
    assert (made.start.cs.selector, made.start.ds.selector) == (0x10, 0x18)
    assert set(made.start.gpr) == {"rsi"}


@pytest.mark.parametrize("inside", [b"not an ELF file", b""])
def test_what_is_no_kernel_inside_unpacks_itself(forge: Any, inside: bytes) -> None:
    payload = packed(inside, "gzip") if inside else b"\x89LZO\0"
    assert plan(forge.bzimage(payload), REQUEST).protocol == "bzimage"


# ---- bad input ----


def test_old_protocols_and_zimages(forge: Any) -> None:
    assert "2.05" in refused(forge.bzimage(version=0x205))
    assert "zImage" in refused(forge.bzimage(loadflags=0))


def test_a_command_line_that_is_too_long(forge: Any) -> None:
    image = forge.bzimage(packed(forge.kernel(), "gzip"), cmdline_size=20)
    plan(image, replace(REQUEST, cmdline="x" * 20))
    for entry in KernelEntry:
        request = replace(REQUEST, cmdline="x" * 21, kernel_entry=entry)
        assert "21 bytes and this kernel takes 20" in refused(image, request)


def test_an_initrd_larger_than_memory(forge: Any) -> None:
    image = forge.bzimage(packed(forge.kernel(), "gzip"))
    modules = (BootModule("big", bytes(65 << 20)),)
    text = refused(image, replace(REQUEST, modules=modules))
    assert "initrd (65M)" in text
    assert "--memory" in text


def test_a_kernel_larger_than_memory(forge: Any) -> None:
    image = forge.bzimage(packed(forge.kernel(), "gzip"))
    assert "--memory" in refused(image, replace(REQUEST, memory=8 << 20))
    assert "--memory" in refused(image, replace(SHIPPED, memory=8 << 20))


def test_words_for_an_initrd_have_no_place(forge: Any) -> None:
    text = refused(forge.bzimage(), replace(REQUEST, modules=(BootModule("a", b"A", "words"),)))
    assert "--cmdline" in text


@pytest.mark.parametrize("how", FORMATS)
def test_a_damaged_payload(forge: Any, how: str) -> None:
    payload = packed(bytes(range(256)) * 64 + forge.kernel(), how)
    middle = len(payload) // 2
    changed = [payload[:middle] + bytes(16) + payload[middle + 16 :]]
    for damaged in (
        *([] if how == "lz4" else changed),  # the legacy frame has no checksum
        payload[:middle] + payload[-4:],  # cut
        payload[:-4] + struct.pack("<I", 5),  # a smaller size than what comes out
        payload[:-4] + b"\xff\xff\xff\xff",  # a size that no kernel has
        payload[:8] + payload[-4:],
    ):
        assert f"{how}-compressed kernel inside" in refused(forge.bzimage(damaged))


@pytest.mark.parametrize("how", ["lz4", "lzma"])
def test_a_changed_byte_is_noticed_without_a_checksum_of_the_payload(forge: Any, how: str) -> None:
    """Kernels before 6.15 end with a checksum of the whole file."""
    image = forge.bzimage(packed(forge.kernel() * 9, how), release=b"6.14.9")
    assert plan(image, REQUEST).protocol == "linux64"
    for at in range(0x440, len(image) - 24, 7):
        damaged = bytearray(image)
        damaged[at] ^= 0x10
        assert "damaged" in refused(bytes(damaged))


@pytest.mark.parametrize("release", [b"", b"6.15.0", b"7.0", b"unknown"])
def test_without_a_checksum_none_is_asked_for(forge: Any, release: bytes) -> None:
    image = bytearray(forge.bzimage(packed(forge.kernel(), "lz4"), release=release))
    image[-1] ^= 1
    assert plan(bytes(image), REQUEST).protocol == "linux64"


def test_a_signature_leaves_the_checksum_right(forge: Any) -> None:
    """As sbsign does: two fields of the PE header are filled in, a certificate is appended."""
    code, pe = b"\xf4" * 0x240, 0x40
    image = bytearray(forge.bzimage(packed(forge.kernel(), "lz4"), code=code, release=b"6.1"))
    struct.pack_into("<2s58xI4s20xH", image, 0, b"MZ", pe, b"PE\0\0", 0x20B)
    image[-4:] = struct.pack("<I", zlib.crc32(image[:-4]) ^ 0xFFFF_FFFF)
    assert plan(bytes(image), REQUEST).protocol == "linux64"
    struct.pack_into("<I", image, pe + 24 + 64, 0x1234)
    struct.pack_into("<II", image, pe + 24 + 144, len(image), 1472)
    signed = bytes(image) + bytes(1472)
    assert plan(signed, REQUEST).protocol == "linux64"
    image[0x300] ^= 1
    assert "checksum" in refused(bytes(image))


def test_a_truncated_file(forge: Any) -> None:
    image = forge.bzimage(packed(forge.kernel(), "gzip"))
    for length in (0x210, 0x263, 0x300, 0x400, len(image) - 20):
        assert "truncated" in refused(image[:length])
