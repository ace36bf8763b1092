"""Images made by hand, byte by byte, from the specifications' own tables."""

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import pytest

CODE = b"\xfa\xf4" * 8  # cli; hlt


@dataclass(frozen=True)
class Part:
    """A PT_LOAD segment to be."""

    paddr: int
    data: bytes = CODE
    memsz: int = 0
    vaddr: int = -1


class Forge:
    """Builders of images; every number can be bent by the caller."""

    code = CODE
    part = Part

    def elf32(
        self,
        *parts: Any,
        entry: Any = None,
        machine: Any = 3,
        extra: Any = b"",
        kind: Any = 2,
        phentsize: Any = 32,
    ) -> Any:
        """System V ABI, "ELF Header" and "Program Header", 32-bit."""
        parts = parts or (Part(0x100000),)
        offset = 52 + 32 * len(parts)
        rows = blob = b""
        for part in parts:
            vaddr = part.paddr if part.vaddr < 0 else part.vaddr
            rows += struct.pack(
                "<8I", 1, offset + len(extra) + len(blob), vaddr, part.paddr,
                len(part.data), part.memsz or len(part.data), 7, 4,
            )  # fmt: skip
            blob += part.data
        head = b"\x7fELF\x01\x01\x01" + bytes(9)
        entry = parts[0].paddr if entry is None else entry
        head += struct.pack(
            "<HHIIIIIHHHHHH", kind, machine, 1, entry, 52, 0, 0, 52, phentsize, len(parts), 40, 0, 0
        )
        return head + rows + extra + blob

    def elf64(
        self,
        *parts: Any,
        entry: Any = None,
        machine: Any = 62,
        extra: Any = b"",
        notes: Any = (),
        kind: Any = 2,
        interp: Any = False,
    ) -> Any:
        """System V ABI, 64-bit; ``extra`` lies between the headers and the segments."""
        parts = parts or (Part(0x100000),)
        count = len(parts) + bool(notes) + interp
        note = b"".join(notes)
        offset = 64 + 56 * count
        rows, blob = b"", extra + note
        if notes:
            rows += struct.pack("<IIQQQQQQ", 4, 4, offset + len(extra), 0, 0, len(note), 0, 4)
        if interp:
            rows += struct.pack("<IIQQQQQQ", 3, 4, offset, 0, 0, 0, 0, 1)
        for part in parts:
            vaddr = part.paddr if part.vaddr < 0 else part.vaddr
            rows += struct.pack(
                "<IIQQQQQQ", 1, 7, offset + len(blob), vaddr, part.paddr,
                len(part.data), part.memsz or len(part.data), 4096,
            )  # fmt: skip
            blob += part.data
        head = b"\x7fELF\x02\x01\x01" + bytes(9)
        entry = parts[0].paddr if entry is None else entry
        head += struct.pack(
            "<HHIQQQIHHHHHH", kind, machine, 1, entry, 64, 0, 0, 64, 56, count, 64, 0, 0
        )
        return head + rows + blob

    def with_sections(self, image: Any, rows: Any, names: Any = 0) -> Any:
        """Append section headers (type, flags, offset, size) to an ELF64 image."""
        table = b"".join(
            struct.pack("<IIQQQQIIQQ", 0, kind, flags, 0, offset, size, 0, 0, 1, 0)
            for kind, flags, offset, size in rows
        )
        image = bytearray(image)
        struct.pack_into("<Q", image, 0x28, len(image))
        struct.pack_into("<HHH", image, 0x3A, 64, len(rows), names)
        return bytes(image) + table

    def note(self, kind: Any, value: Any, name: Any = b"Xen\0") -> Any:
        """An ELF note with 4-byte alignment."""
        return struct.pack("<III", len(name), len(value), kind) + name + value

    def multiboot1(self, flags: Any = 0, *fields: Any) -> Any:
        """The Multiboot Specification, "The layout of Multiboot header"."""
        magic = 0x1BADB002
        return struct.pack("<III", magic, flags, -(magic + flags) & 0xFFFFFFFF) + struct.pack(
            f"<{len(fields)}I", *fields
        )

    def flat1(
        self,
        load: Any = 0x200000,
        code: Any = CODE,
        at: Any = 16,
        bss: Any = 0,
        load_end: Any = 0,
        entry: Any = None,
        shift: Any = 0,
    ) -> Any:
        """A flat image with multiboot 1 address fields; the header lies ``at`` bytes in."""
        entry = load + at + 32 if entry is None else entry
        header = self.multiboot1(
            1 << 16,
            load + at + shift,
            load,
            load_end and load + load_end,
            bss and load + bss,
            entry,
        )
        return b"\x90" * at + header + code

    def tag(self, kind: Any, body: Any = b"", flags: Any = 0) -> Any:
        """A multiboot 2 header tag with its padding."""
        data = struct.pack("<HHI", kind, flags, 8 + len(body)) + body
        return data + bytes(-len(data) % 8)

    def multiboot2(self, *tags: Any, arch: Any = 0, end: Any = True) -> Any:
        """The Multiboot2 Specification, "The layout of Multiboot2 header"."""
        body = b"".join(tags) + (self.tag(0) if end else b"")
        length = 16 + len(body)
        magic = 0xE85250D6
        return struct.pack(
            "<IIII", magic, arch, length, -(magic + arch + length) & 0xFFFFFFFF
        ) + body  # fmt: skip

    def bzimage(
        self,
        payload: Any = b"",
        version: Any = 0x20F,
        code: Any = b"\xf4" * 0x240,
        sectors: Any = 1,
        loadflags: Any = 1,
        xloadflags: Any = 1,
        align: Any = 1 << 21,
        pref: Any = 1 << 24,
        init_size: Any = 1 << 20,
        cmdline_size: Any = 2047,
        initrd_max: Any = 0x7FFFFFFF,
        relocatable: Any = 1,
        release: Any = b"",
    ) -> Any:
        """Linux, "The Linux/x86 Boot Protocol": boot sector, setup, code with the payload in it.

        With a ``release``, such as b"6.1.0", "The Image Checksum" is in the last four bytes.
        """
        image = bytearray((1 + sectors) * 512)
        body = code + payload
        body += bytes(-(len(body) + 4) % 16 + 4)
        for at, form, value in (
            (0x1F1, "<B", sectors), (0x1F4, "<I", len(body) // 16), (0x1FE, "<H", 0xAA55),
            (0x200, "<H", 0x6AEB), (0x202, "<4s", b"HdrS"), (0x206, "<H", version),
            (0x211, "<B", loadflags), (0x214, "<I", 0x100000), (0x22C, "<I", initrd_max),
            (0x230, "<I", align), (0x234, "<B", relocatable), (0x236, "<H", xloadflags),
            (0x238, "<I", cmdline_size), (0x248, "<I", len(code)), (0x24C, "<I", len(payload)),
            (0x258, "<Q", pref), (0x260, "<I", init_size),
            (0x20E, "<H", 0x80 if release else 0), (0x280, "<16s", release),
        ):  # fmt: skip
            struct.pack_into(form, image, at, value)
        whole = bytes(image) + body
        return whole[:-4] + (
            struct.pack("<I", zlib.crc32(whole[:-4]) ^ 0xFFFF_FFFF) if release else bytes(4)
        )

    def kernel(self, relocations: Any = None, size: Any = 8192) -> Any:
        """A 64-bit kernel linked as Linux is, at 16 MiB, with the table of its relocations."""
        data = bytearray(CODE + bytes(size - len(CODE)))
        struct.pack_into("<QII", data, 0x100, 0xFFFF_FFFF_8100_0000, 0x8100_1000, 0x1000)
        part = Part(0x1000000, bytes(data), vaddr=0xFFFF_FFFF_8100_0000)
        image = self.elf64(part, entry=0x1000000)
        if relocations is None:
            relocations = (0, 0x8100_0100, 0, 0x8100_010C, 0, 0x8100_0108)
        return image + struct.pack(f"<{len(relocations)}I", *relocations)


@pytest.fixture(scope="session")
def forge() -> Any:
    return Forge()


class Ram:
    """Guest memory as a plan fills it."""

    def __init__(self, plan: Any) -> None:
        self.parts = plan.placements

    def read(self, gpa: Any, size: Any) -> Any:
        for part in self.parts:
            if part.gpa <= gpa < part.end:
                piece = bytes(part.data[gpa - part.gpa :][:size])
                return piece + bytes(size - len(piece))
        return bytes(size)

    def words(self, gpa: Any, layout: Any) -> Any:
        return struct.unpack(layout, self.read(gpa, struct.calcsize(layout)))

    def text(self, gpa: Any) -> Any:
        return self.read(gpa, 4096).split(b"\0")[0]


@pytest.fixture
def ram() -> Any:
    return Ram
