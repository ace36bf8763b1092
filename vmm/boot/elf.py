"""ELF images: what of a file is loaded where, and the plain ELF start.

A plain ELF has no boot protocol: ELF32 starts in 32-bit flat protected mode, ELF64 in long mode on
an identity map of 4 GiB, each with a 16 KiB stack and all other registers zero. Segments go to
their physical addresses; an entry given as a virtual address is translated with its segment, as
GRUB and QEMU do.
"""

from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.common.utils import struct_parse
from elftools.elf.structs import ELFStructs

from vmm.boot.entry import long, protected, put_stack
from vmm.boot.layout import Layout
from vmm.boot.plan import BootPlan, Content
from vmm.boot.request import BootRequest, refuse_extras
from vmm.errors import UsageError

MAGIC = b"\x7fELF"
_X86 = ("EM_386", "EM_X86_64")
_UNLINKED = {
    "ET_REL": ("an object file", "link it first"),
    "ET_CORE": ("a core dump", "give a kernel image"),
}


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of an image: ``size`` bytes of memory that begin with ``data``."""

    gpa: int
    gva: int
    data: Content
    size: int
    name: str

    def gpa_of(self, gva: int) -> int | None:
        """Return the physical address of a virtual one inside the segment, else None."""
        return gva - self.gva + self.gpa if 0 <= gva - self.gva < self.size else None


class ElfImage:
    """A checked x86 ELF file. Every fault of the file is a UsageError."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._stream = BytesIO(data)
        # Only the layouts of pyelftools: its ELFFile imports DWARF, and an idle start shows it.
        self._layouts: Any = ELFStructs(
            little_endian=data[5:6] != b"\x02", elfclass=32 if data[4:5] == b"\x01" else 64
        )
        self._layouts.create_basic_structs()
        try:
            self.header: Any = struct_parse(self._layouts.Elf_Ehdr, self._stream, 0)
        except (ELFError, ValueError, KeyError) as error:
            raise UsageError("the ELF image is truncated or damaged; build it again") from error
        ident = self.header["e_ident"]
        self._layouts.create_advanced_structs(
            self.header["e_type"], self.header["e_machine"], ident["EI_OSABI"]
        )
        self._refuse_foreign()
        self._check_table("program header", "e_phoff", "e_phentsize", "e_phnum")
        self._check_table("section header", "e_shoff", "e_shentsize", "e_shnum")

    @property
    def bits(self) -> int:
        """Return 32 or 64: the class of the file."""
        return int(self._layouts.elfclass)

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """Return what is to be loaded, in file order."""
        loads = tuple(
            self._segment(index, row)
            for index, row in enumerate(self.program_headers)
            if row["p_type"] == "PT_LOAD" and row["p_memsz"]
        )
        if not loads:
            raise UsageError("the ELF image has nothing to load; link it as an executable")
        return loads

    @cached_property
    def program_headers(self) -> list[Any]:
        """Return the program headers as pyelftools parses them."""
        return self._rows("Elf_Phdr", "e_phoff", "e_phnum")

    @cached_property
    def section_headers(self) -> list[Any]:
        """Return the section headers as pyelftools parses them."""
        return self._rows("Elf_Shdr", "e_shoff", "e_shnum")

    def physical(self, address: int) -> int:
        """Return where execution begins for ``address``, linear or physical, in a segment."""
        for segment in self.segments:
            if (gpa := segment.gpa_of(address)) is not None:
                return gpa
        if any(0 <= address - segment.gpa < segment.size for segment in self.segments):
            return address
        raise UsageError(
            f"the entry {address:#x} of the ELF image lies in no loaded segment; "
            "check the linker script's ENTRY()"
        )

    def span(self) -> tuple[int, int]:
        """Return the lowest physical address of all segments, and the one behind the highest."""
        return (
            min(segment.gpa for segment in self.segments),
            max(segment.gpa + segment.size for segment in self.segments),
        )

    def flattened(self) -> bytearray:
        """Return the data of all segments as it lies in memory, from the lowest address on."""
        start = self.span()[0]
        memory = bytearray(max(s.gpa + len(s.data) for s in self.segments) - start)
        for segment in self.segments:
            at = segment.gpa - start
            memory[at : at + len(segment.data)] = segment.data
        return memory

    def file_end(self) -> int:
        """Return where the file ends, by its own tables: something else may follow it."""
        header = self.header
        ends = [
            header["e_phoff"] + header["e_phentsize"] * header["e_phnum"],
            header["e_shoff"] + header["e_shentsize"] * header["e_shnum"],
        ]
        ends += [row["p_offset"] + row["p_filesz"] for row in self.program_headers]
        ends += [
            row["sh_offset"] + row["sh_size"]
            for row in self.section_headers
            if row["sh_type"] != "SHT_NOBITS"
        ]
        return int(max(ends))

    def slice(self, offset: int, size: int, name: str) -> bytes:
        """Return a range of the file, or refuse a truncated one."""
        return bytes(self.view(offset, size, name))

    def view(self, offset: int, size: int, name: str) -> memoryview:
        """Return the same, not copied: a kernel has 40 MiB."""
        if offset + size > len(self.data):
            raise UsageError(
                f"the ELF image is truncated: {name} needs {offset + size} bytes of a file of "
                f"{len(self.data)}; build or copy it again"
            )
        return memoryview(self.data)[offset : offset + size]

    def _segment(self, index: int, row: Any) -> Segment:
        name = f"segment {index}"
        if row["p_filesz"] > row["p_memsz"]:
            raise UsageError(
                f"{name} of the ELF image has {row['p_filesz']:#x} bytes in the file for "
                f"{row['p_memsz']:#x} in memory; build it again"
            )
        data = self.view(row["p_offset"], row["p_filesz"], name)
        return Segment(row["p_paddr"], row["p_vaddr"], data, row["p_memsz"], name)

    def _rows(self, kind: str, offset: str, count: str) -> list[Any]:
        layout, start = getattr(self._layouts, kind), self.header[offset]
        size = layout.sizeof()
        return [
            struct_parse(layout, self._stream, start + index * size)
            for index in range(self.header[count])
        ]

    def _refuse_foreign(self) -> None:
        if self.data[4:5] not in (b"\x01", b"\x02"):
            raise UsageError(
                "the ELF image is damaged: it is neither 32 nor 64 bits; build it again"
            )
        if self.data[5:6] != b"\x01" or self.header["e_machine"] not in _X86:
            machine = str(self.header["e_machine"]).removeprefix("EM_")
            raise UsageError(f"the ELF image is for {machine}, not x86; build it for x86-64")
        if self.header["e_type"] in _UNLINKED:
            what, remedy = _UNLINKED[self.header["e_type"]]
            raise UsageError(f"the ELF image is {what}; {remedy}")

    def _check_table(self, name: str, offset: str, entry: str, count: str) -> None:
        if not self.header[count]:
            return
        kind = "Elf_Phdr" if name.startswith("program") else "Elf_Shdr"
        expected = getattr(self._layouts, kind).sizeof()
        if self.header[entry] != expected:
            raise UsageError(
                f"the ELF image is damaged: {name}s of {self.header[entry]} bytes, not "
                f"{expected}; build it again"
            )
        self.slice(self.header[offset], expected * self.header[count], f"the {name} table")


def load_segments(layout: Layout, image: ElfImage) -> None:
    """Claim and place every segment."""
    for segment in image.segments:
        layout.load(segment.gpa, segment.data, segment.name, segment.size)


def plan_elf(data: bytes, request: BootRequest) -> BootPlan:
    """Plan a plain ELF: no protocol, so no command line and no modules."""
    image = ElfImage(data)
    kinds = {row["p_type"] for row in image.program_headers}
    if "PT_INTERP" in kinds:
        raise UsageError("the ELF image is a program for an operating system; give a kernel")
    if image.header["e_type"] == "ET_DYN" and "PT_DYNAMIC" in kinds:
        raise UsageError("the ELF image wants a dynamic linker; link it with -static -no-pie")
    if image.bits == 32 and image.header["e_machine"] == "EM_X86_64":
        raise UsageError("the ELF32 image holds x86-64 code (x32); link it as elf64-x86-64")
    refuse_extras(request, "plain ELF image")
    layout = Layout(request.memory)
    load_segments(layout, image)
    rip = image.physical(image.header["e_entry"])
    if rip >> 32:
        raise UsageError(f"the entry {rip:#x} is above the 4 GiB that are mapped; link it lower")
    start = long if image.bits == 64 else protected
    state = start(layout, rip, {"rsp": put_stack(layout)})
    return BootPlan(f"elf{image.bits}", layout.placements(), state, data)
