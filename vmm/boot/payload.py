"""The loadable part of a multiboot image: ELF segments, or a flat file with address fields.

Both multiboot specifications have the same five fields under different headers ("The address
fields of Multiboot header", "The address tag of Multiboot2 header").
"""

from dataclasses import dataclass, replace

from vmm.boot.elf import MAGIC, ElfImage, Segment
from vmm.boot.layout import Layout
from vmm.errors import UsageError

FROM_START = 0xFFFFFFFF  # load_addr of multiboot 2: load the file from its first byte


@dataclass(frozen=True, slots=True)
class AddressFields:
    """Where a flat file is loaded; ``load_end`` and ``bss_end`` may be 0, for "all" and "none"."""

    header: int
    load: int
    load_end: int
    bss_end: int


@dataclass(frozen=True, slots=True)
class Payload:
    """Segments and the entry; ``elf`` is the ELF file they came from, if any."""

    segments: tuple[Segment, ...]
    entry: int
    elf: ElfImage | None = None

    @property
    def start(self) -> int:
        """Return the lowest physical address."""
        return min(segment.gpa for segment in self.segments)

    @property
    def end(self) -> int:
        """Return the first physical address after all segments."""
        return max(segment.gpa + segment.size for segment in self.segments)

    def moved(self, delta: int) -> "Payload":
        """Return the payload shifted as a whole."""
        segments = tuple(replace(segment, gpa=segment.gpa + delta) for segment in self.segments)
        return replace(self, segments=segments, entry=self.entry + delta)

    def load(self, layout: Layout) -> None:
        """Claim and place every segment; the entry must lie in one of them."""
        if not any(0 <= self.entry - part.gpa < part.size for part in self.segments):
            raise UsageError(
                f"the entry {self.entry:#x} of the multiboot image lies outside what is loaded; "
                "correct its header"
            )
        if self.entry >> 32:
            raise UsageError(f"the multiboot entry {self.entry:#x} is above 4 GiB; link it lower")
        for segment in self.segments:
            layout.load(segment.gpa, segment.data, segment.name, segment.size)


def elf_payload(data: bytes, entry: int | None = None) -> Payload:
    """Return the payload of an ELF file; ``entry`` overrides the file's own, as linked."""
    if not data.startswith(MAGIC):
        raise UsageError(
            "the multiboot image is neither ELF nor has address fields; "
            "set them in its header or link it as ELF"
        )
    image = ElfImage(data)
    address = image.header["e_entry"] if entry is None else entry
    return Payload(image.segments, image.physical(address), image)


def flat_payload(data: bytes, header_at: int, fields: AddressFields, entry: int) -> Payload:
    """Return the payload that address fields describe; ``header_at`` is the header's offset."""
    load = fields.header - header_at if fields.load == FROM_START else fields.load
    offset = header_at - (fields.header - load)
    load_end = fields.load_end or load + len(data) - offset
    bss_end = fields.bss_end or load_end
    if not (0 <= offset <= header_at and 0 <= load < load_end <= bss_end):
        raise UsageError(
            f"the multiboot address fields are inconsistent (header {fields.header:#x}, load "
            f"{fields.load:#x}, end {fields.load_end:#x}, bss {fields.bss_end:#x}); correct them"
        )
    size = load_end - load
    if offset + size > len(data):
        raise UsageError(
            f"the multiboot image is truncated: its header asks for {offset + size} bytes of a "
            f"file of {len(data)}; build or copy it again"
        )
    segment = Segment(load, load, data[offset : offset + size], bss_end - load, "the image")
    return Payload((segment,), entry)
