"""Xen's domain builder: what a PV guest finds, read back by its own page tables.

Judged by Xen's public headers: xen.h (struct start_info, "the following layout"), elfnote.h.
"""

import struct
from array import array
from typing import Any

import pytest

from hwmodel.cpu.xen import layout_of
from vmm.boot.plan import BootPlan
from vmm.boot.request import BootModule, BootRequest
from vmm.boot.xen.builder import Domain, plan_pv
from vmm.errors import UsageError
from vmm.memory.pseudo import permutation

PAGE = 4096
MEMORY = 32 << 20
FRAMES = MEMORY // PAGE
BASE = 0xFFFF_FFFF_8000_0000
ENTRY, HYPERCALL_PAGE, VIRT_BASE, PADDR_OFFSET, INIT_P2M, MOD_START_PFN = 1, 2, 3, 4, 15, 16
INFO = struct.Struct("<32sQQI4xQI4xQI4xQQQQQ1024sQQ")
MODULES = (BootModule("a", b"A" * 5001), BootModule("b", b"B" * 8))


class Loaded:
    """A plan put into machine memory, and read by linear address as the guest does."""

    def __init__(self, plan: BootPlan, domain: Domain) -> None:
        self.plan, self.domain = plan, domain
        self.ram = bytearray(MEMORY)
        for part in plan.placements:
            for at in range(0, len(part.data), PAGE):  # each begins at a page
                piece = part.data[at : at + PAGE]
                pfn, offset = divmod(part.gpa + at, PAGE)
                place = domain.p2m[pfn] * PAGE + offset
                assert offset + len(piece) <= PAGE
                self.ram[place : place + len(piece)] = piece
        self.info = INFO.unpack(self.read(plan.start.gpr["rsi"], INFO.size))

    def entry(self, linear: int) -> int:
        table, found = self.plan.start.cr3, 0
        for shift in (39, 30, 21, 12):
            at = table + (linear >> shift & 511) * 8
            found = int.from_bytes(self.ram[at : at + 8], "little")
            if not found & 1:
                return 0
            table = found & 0xF_FFFF_FFFF_F000
        return found

    def read(self, linear: int, size: int) -> bytes:
        data = b""
        while len(data) < size:
            at = linear + len(data)
            entry, offset = self.entry(at), at % PAGE
            assert entry, hex(at)
            place = (entry & 0xF_FFFF_FFFF_F000) + offset
            data += self.ram[place : place + min(PAGE - offset, size - len(data))]
        return data


def notes(forge: Any, **more: int) -> list[bytes]:
    names = {
        "virt_base": VIRT_BASE, "entry": ENTRY, "hypercall_page": HYPERCALL_PAGE,
        "paddr_offset": PADDR_OFFSET, "init_p2m": INIT_P2M, "by_pfn": MOD_START_PFN,
    }  # fmt: skip
    values = {"virt_base": BASE, "entry": BASE + 0x100123, **more}
    made: list[bytes] = [forge.note(names[n], struct.pack("<Q", v)) for n, v in values.items()]
    return made


def build(image: bytes, *, identity: bool = False, **request: Any) -> Loaded:
    domain = Domain(permutation(FRAMES, identity=identity), layout_of(FRAMES, 1))
    given: dict[str, Any] = {"modules": MODULES, **request}
    return Loaded(plan_pv(image, BootRequest(MEMORY, **given), domain), domain)


def check_start(loaded: Loaded, cmdline: bytes = b"") -> None:
    magic, pages, shared, flags, _, port, _, port2, *_ = loaded.info
    assert magic.rstrip(b"\0") == b"xen-3.0-x86_64"
    assert (pages, port, port2) == (FRAMES, 1, 2)
    assert shared == loaded.domain.layout.shared_info * PAGE
    assert flags & 1 == 0  # no SIF_PRIVILEGED
    assert loaded.info[13].rstrip(b"\0") == cmdline


@pytest.mark.parametrize("identity", [False, True])
def test_start_info_lists_and_pages(forge: Any, identity: bool) -> None:
    loaded = build(forge.elf64(notes=notes(forge)), identity=identity, cmdline="console=hvc0")
    check_start(loaded, b"console=hvc0")
    p2m = loaded.domain.p2m
    moved = sum(pfn != mfn for pfn, mfn in enumerate(p2m))
    assert moved == 0 if identity else moved > FRAMES * 9 // 10
    tables, count, listed, module, size = loaded.info[8:13]
    assert array("Q", loaded.read(listed, 8 * FRAMES)) == p2m
    assert loaded.read(module, size) == b"A" * 5001 + bytes(3) + b"B" * 8
    for linear, mfn in ((loaded.plan.start.gpr["rsi"] + PAGE, loaded.info[4]),
                        (loaded.plan.start.gpr["rsi"] + 2 * PAGE, loaded.info[6])):  # fmt: skip
        assert loaded.entry(linear) >> 12 & (1 << 40) - 1 == mfn
    assert (loaded.info[4], loaded.info[6]) == loaded.plan.pv_pages
    assert loaded.plan.start.cr3 == p2m[(tables - BASE) // PAGE] * PAGE
    assert all(not loaded.entry(tables + n * PAGE) & 2 for n in range(count)), "tables: read-only"
    assert loaded.read(BASE + 0x100000, 4) == forge.code[:4]
    assert loaded.plan.start.rip == BASE + 0x100123
    stack = loaded.plan.start.gpr["rsp"]
    spare = next(n for n in range(1, 4096) if not loaded.entry(stack + n * PAGE)) * PAGE
    assert spare >= 512 << 10
    assert (stack + spare) % (4 << 20) == 0


def test_notes_may_be_in_a_section(forge: Any) -> None:
    blob = b"".join(notes(forge))
    image = forge.elf64(extra=blob)
    plain = forge.with_sections(image, [(7, 0, image.index(blob), len(blob))])
    check_start(build(plain))
    with pytest.raises(UsageError, match="no 64-bit Xen PV kernel"):
        build(image)


def test_a_kernel_may_be_inside_a_bzimage(forge: Any) -> None:
    import gzip

    inside = forge.elf64(notes=notes(forge))
    loaded = build(forge.bzimage(payload=gzip.compress(inside)))
    check_start(loaded)
    assert loaded.plan.symbols_source == inside


def test_the_list_and_the_module_may_have_places_of_their_own(forge: Any) -> None:
    own = 0x20_0000_0000
    loaded = build(forge.elf64(notes=notes(forge, init_p2m=own, by_pfn=1)))
    flags, listed, module, size = loaded.info[3], *loaded.info[10:13]
    assert listed == own
    assert array("Q", loaded.read(own, 8 * FRAMES)) == loaded.domain.p2m
    assert flags & 8  # SIF_MOD_START_PFN
    assert loaded.read(BASE + module * PAGE, size).startswith(b"AAAA")
    first, frames = loaded.info[14:16]
    assert frames == FRAMES * 8 // PAGE
    assert not loaded.entry(BASE + first * PAGE), "it is not mapped twice"


def test_the_hypercall_page_is_filled(forge: Any) -> None:
    part = forge.part(0x100000, forge.code + bytes(3 * PAGE))
    page = BASE + 0x101000
    loaded = build(forge.elf64(part, notes=notes(forge, hypercall_page=page)))
    assert b"\xb8\x1d\0\0\0\x0f\x05" in loaded.read(page + 29 * 32, 32)  # mov eax, 29; syscall
    assert loaded.read(BASE + 0x100000, 4) == forge.code[:4]


def test_without_modules_none_is_named(forge: Any) -> None:
    assert build(forge.elf64(notes=notes(forge)), modules=()).info[11:13] == (0, 0)


def test_what_cannot_be_started_is_refused_in_one_line(forge: Any) -> None:
    image = forge.elf64(notes=notes(forge))
    with pytest.raises(UsageError, match="1023 bytes"):
        build(image, cmdline="x" * 1024)
    with pytest.raises(UsageError, match="give more"):
        build(image, modules=(BootModule("big", bytes(MEMORY)),))
    with pytest.raises(UsageError, match="neither an ELF file nor a bzImage"):
        build(b"\x90" * 100)
    with pytest.raises(UsageError, match="no 64-bit Xen PV kernel"):
        build(forge.elf32())


@pytest.mark.parametrize(
    "more",
    [
        {"paddr_offset": 1 << 40}, {"paddr_offset": 0x100001}, {"virt_base": 1 << 47},
        {"hypercall_page": 0}, {"hypercall_page": BASE + (1 << 30)}, {"hypercall_page": 5},
        {"hypercall_page": BASE + 0x101001}, {"init_p2m": BASE}, {"init_p2m": (1 << 64) - PAGE},
        {"virt_base": (1 << 64) - PAGE}, {"init_p2m": 3}, {"virt_base": 7},
    ],
)  # fmt: skip
def test_notes_that_make_no_sense_end_in_one_line_or_a_plan(
    forge: Any, more: dict[str, int]
) -> None:
    domain = Domain(permutation(FRAMES), layout_of(FRAMES, 1))
    image = forge.elf64(notes=notes(forge, **more))
    try:
        made = plan_pv(image, BootRequest(MEMORY), domain)
    except UsageError as error:
        lines = str(error).splitlines()
    else:
        lines = ["a plan"]
        assert all(p.gpa >= 0 and p.gpa + len(p.data) <= MEMORY for p in made.placements)
    assert len(lines) == 1
