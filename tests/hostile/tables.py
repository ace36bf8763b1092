"""The tables of a hostile program: descriptors, gates, task segments, page tables; broken at random.

Where things lie in its megabyte of memory (all addresses guest-physical, mapped one to one):

0x00000  real-mode vectors    0x01000  GDT, LDT at 0x1800      0x02000  IDT       0x03000  TSS
0x04000  4-level tables       0x08000  PAE tables              0x0b000  32-bit tables
0x10000  code, four pages     0x14000  handlers that skip what faulted, one page
0x20000  stacks and data       WILDERNESS: code that is the same for all programs, for wild jumps
"""

import struct
from dataclasses import dataclass
from random import Random
from typing import Final

IVT, GDT, LDT, IDT, TSS = 0, 0x1000, 0x1800, 0x2000, 0x3000
PML4, PAE, PD32 = 0x4000, 0x8000, 0xB000
CODE, HANDLERS, DATA = 0x10000, 0x14000, 0x20000
CODE_SIZE: Final = 0x4000
WILDERNESS: Final = ((0xD000, 0x3000), (0x15000, 0xB000), (0x30000, 0x70000))
WITH_ERROR: Final = {8, 10, 11, 12, 13, 14, 17, 21}

Patches = list[tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class Segment:
    """What a descriptor says; `rights` as in the VMCS (access byte, flags from bit 12)."""

    selector: int
    base: int
    limit: int
    rights: int


def descriptor(base: int, limit: int, rights: int) -> bytes:
    """Encode a code, data or system descriptor (8 bytes); `limit` in bytes or pages by the G flag."""
    raw = limit >> 12 if rights & 0x8000 else limit
    high = base & 0xFF000000 | base >> 16 & 0xFF | (rights & 0xF0FF) << 8 | raw & 0xF0000
    return struct.pack("<II", (raw & 0xFFFF) | (base & 0xFFFF) << 16, high)


def _segments() -> list[Segment]:
    flat, small = 0xFFFFFFFF, 0xFFFF
    rows = [(0, 0, 0)]
    for dpl in (0, 3, 1, 2):
        p = dpl << 5
        rows += [
            (0, flat, 0xA09B | p), (0, flat, 0xC09B | p), (0, small, 0x009B | p),
            (0, flat, 0xC093 | p), (0, small, 0x0093 | p), (0x10000, small, 0x409F | p),
            (0, 0xFFF, 0xC097 | p), (0x20000, small, 0x4093 | p),
        ]  # fmt: skip
    return [Segment(8 * n, base, limit, rights) for n, (base, limit, rights) in enumerate(rows)]


SEGMENTS: Final = _segments()
TSS_SELECTOR, LDT_SELECTOR, GATES = 0x110, 0x120, 0x130


def segment(kind: str, dpl: int) -> Segment:
    """Return the good segment of a kind: code64, code32, code16, data32, data16."""
    offset = {"code64": 1, "code32": 2, "code16": 3, "data32": 4, "data16": 5}[kind]
    row = {0: 0, 3: 1, 1: 2, 2: 3}[dpl]
    found = SEGMENTS[8 * row + offset]
    return Segment(found.selector | dpl, found.base, found.limit, found.rights)


def gdt(random: Random, long_mode: bool) -> Patches:
    """Segments of every ring, a TSS, an LDT, call and task gates to random places."""
    table = b"".join(descriptor(s.base, s.limit, s.rights) for s in SEGMENTS)
    patches = [(GDT, table)]
    tss_rights = 0x8B if long_mode or random.random() < 0.8 else 0x83
    for selector, base, rights in ((TSS_SELECTOR, TSS, tss_rights), (LDT_SELECTOR, LDT, 0x82)):
        limit = 0x2FF if rights != 0x82 else 0xFF
        patches.append((GDT + selector, descriptor(base, limit, rights) + bytes(8)))
    gates = b"".join(_gate(random, random.choice((0x8C, 0xEC, 0xE4, 0xE5))) for _ in range(6))
    patches += [(GDT + GATES, gates), (LDT, random.choice((table[8:64], random.randbytes(64))))]
    return patches


def _gate(random: Random, rights: int) -> bytes:
    target = CODE + random.randrange(CODE_SIZE)
    selector = random.choice((8, 16, 24, 0x0B, 0x48, TSS_SELECTOR, LDT_SELECTOR, 0))
    low = struct.pack("<HHBBH", target & 0xFFFF, selector, 0, rights, target >> 16)
    return low + bytes(8)


def handler_offset(bits: int, error: bool) -> int:
    """Return where the handler of that width lies, an offset in segment 0."""
    return HANDLERS + {16: 0, 32: 0x40, 64: 0x80}[bits] + (0x20 if error else 0)


def handlers() -> Patches:
    """Return handlers that move the frame's IP one byte on: a program goes on behind its faults."""
    code = {
        (16, False): "5589e5ff46025dcf", (16, True): "5589e5ff46045d83c402cf",
        (32, False): "ff0424cf", (32, True): "83c404ff0424cf",
        (64, False): "48ff042448cf", (64, True): "4883c40848ff042448cf",
    }  # fmt: skip
    return [(handler_offset(*key), bytes.fromhex(text)) for key, text in code.items()]


def idt(random: Random, bits: int, selector: int) -> Patches:
    """Gates of the mode's form; most go to the handlers, some to random code, some nowhere."""
    if bits == 0:
        return [(IVT, b"".join(_vector(random, v) for v in range(256)))]
    return [
        (
            IDT,
            b"".join(
                _interrupt_gate(random, v, bits, selector)
                for v in range(256 if bits == 32 else 128)
            ),
        )
    ]


def _vector(random: Random, vector: int) -> bytes:
    """A real-mode vector: no error codes there; the handlers' segment is 0x1400."""
    if random.random() < 0.85:
        return struct.pack("<HH", 0, HANDLERS >> 4)
    return struct.pack("<HH", random.randrange(CODE_SIZE), random.choice((CODE >> 4, 0, 0xFFFF)))


def _interrupt_gate(random: Random, vector: int, bits: int, selector: int) -> bytes:
    kind = random.choice((0x8E, 0xEE, 0x8F, 0xEF)) - (8 if bits == 16 else 0)
    target, ist = handler_offset(bits, vector in WITH_ERROR), 0
    luck = random.random()
    if luck < 0.12:
        target = random.choice((CODE + random.randrange(CODE_SIZE), random.getrandbits(32)))
    elif luck < 0.16:
        kind, selector = random.choice((0x85, 0xE5, 0x0E, 0xEC, 0x00)), random.getrandbits(16)
    elif luck < 0.22:
        ist = random.randrange(8)
    low = struct.pack("<HHBBH", target & 0xFFFF, selector, ist, kind, target >> 16 & 0xFFFF)
    return low + (bytes(8) if bits == 64 else b"")


def tss(random: Random, bits: int) -> Patches:
    """Stacks for each ring; an I/O bitmap that allows some ports."""
    stacks = [DATA + 0x1000 * n + random.choice((0x800, 0x800, 4, 0xFFF)) for n in range(10)]
    if random.random() < 0.1:
        stacks[random.randrange(10)] = random.getrandbits(random.choice((16, 32, 64)))
    image = bytearray(0x300)
    if bits == 64:
        struct.pack_into("<I3Q", image, 0, 0, *stacks[:3])
        struct.pack_into("<7Q", image, 36, *stacks[3:])
    else:
        ring = [(stacks[n] & 0xFFFFFFFF, segment("data32", n).selector) for n in range(3)]
        struct.pack_into("<IIIIIII", image, 0, 0, *(word for pair in ring for word in pair))
    struct.pack_into("<H", image, 102, random.choice((104, 104, 0x2F0, 0xFFFF)))
    image[104:0x200] = random.choice((bytes(408 - 12), random.randbytes(396), b"\xff" * 396))[:408]
    return [(TSS, bytes(image))]


def paging(random: Random, harm: float) -> Patches:
    """Identity maps of the first 2 MiB in all three forms, seen a second time at higher addresses."""

    def entries(count: int, wide: bool) -> list[int]:
        made = [page << 12 | 0x07 for page in range(count)]
        while random.random() < harm:
            at = random.choice(
                (random.randrange(count), CODE >> 12, DATA >> 12, IDT >> 12, TSS >> 12)
            )
            bit = random.choice((0, 1, 2, 5, 6, 7, 8, random.randrange(64 if wide else 32)))
            made[at] ^= 1 << bit
        return made

    pages = entries(512, True)
    large = random.random() < 0.1 * harm
    patches = [
        (PML4, _quads({0: PML4 + 0x1007, 1: PML4 + 0x1007, 511: PML4 + 0x1007})),
        (
            PML4 + 0x1000,
            _quads({0: PML4 + 0x2007, 3: 0xFEE00087 & ~0x3FFFFFFF, 511: PML4 + 0x2007}),
        ),
        (PML4 + 0x2000, _quads({0: 0x87 if large else PML4 + 0x3007, 511: PML4 + 0x3007})),
        (PML4 + 0x3000, struct.pack("<512Q", *pages)),
        (PAE, _quads({0: PAE + 0x1001, 1: PAE + 0x1001, 3: PAE + 0x1001})),
        (PAE + 0x1000, _quads({0: PML4 + 0x3007, 2: 0x87, 503: 0xFEE00087 & ~0x1FFFFF})),
        (PD32, _longs({0: PD32 + 0x1007, 512: PD32 + 0x1007, 1019: 0xFEC00087})),
        (PD32 + 0x1000, struct.pack("<1024I", *entries(1024, False))),
    ]
    if random.random() < harm / 2:
        patches.append((PML4 + 8 * random.randrange(0x600), random.randbytes(8)))
    return patches


def _quads(entries: dict[int, int]) -> bytes:
    return b"".join(struct.pack("<Q", entries.get(n, 0)) for n in range(512))


def _longs(entries: dict[int, int]) -> bytes:
    return b"".join(struct.pack("<I", entries.get(n, 0)) for n in range(1024))
