"""KASLR on the host: what a bzImage's own decompressor does, from a seed instead of RDRAND.

Behind the ELF file in the payload lie the places to correct (Linux, arch/x86/tools/relocs.c and
handle_relocations() in arch/x86/boot/compressed/misc.c): 32-bit words, each the low half of a
virtual address, in groups that begin with a zero: addresses of 64-bit words to raise, of 32-bit
words to lower (per-CPU offsets; not since Linux 6.15), of 32-bit words to raise.
"""

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vmm.boot.elf import ElfImage
from vmm.boot.linux.header import SetupHeader
from vmm.errors import UsageError

_KERNEL_MAP: Final = 0x8000_0000  # the low half of __START_KERNEL_map
_WINDOW: Final = 1 << 30  # KERNEL_IMAGE_SIZE with CONFIG_RANDOMIZE_BASE
_WORD: Final = struct.Struct("<I")
_LONG: Final = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Relocations:
    """Virtual addresses, low halves, of the words to correct."""

    wide: Sequence[int]
    inverse: Sequence[int]
    narrow: Sequence[int]


@dataclass(frozen=True, slots=True)
class Shift:
    """How far the kernel goes from where it is linked, in bytes: in virtual memory, in RAM."""

    virtual: int = 0
    physical: int = 0


def relocations_of(content: bytes, image: ElfImage) -> Relocations:
    """Read the table behind the ELF file; UsageError where the kernel has none."""
    table = array("I")
    blob = content[image.file_end() :]
    if len(blob) % 4 == 0:
        table.frombytes(blob)
    zeros = [index for index, word in enumerate(table) if word == 0]
    if not zeros or zeros[0] != 0 or len(zeros) not in (2, 3):
        raise UsageError(
            "--kaslr: the kernel has no relocations (CONFIG_RANDOMIZE_BASE); leave --kaslr out"
        )
    groups = [table[a + 1 : b] for a, b in zip(zeros, [*zeros[1:], len(table)], strict=True)]
    return Relocations(groups[0], groups[1] if len(groups) == 3 else array("I"), groups[-1])


def choose_shift(seed: int, header: SetupHeader, span: tuple[int, int], top: int) -> Shift:
    """Draw two shifts: the kernel at physical ``span`` may go up to ``top``, and in its window."""
    import hashlib  # opens a library, and only --kaslr needs it

    start, end = span
    align = max(header.kernel_alignment, 1 << 21)
    size = max(header.init_size, end - start)
    draw = hashlib.sha256(b"kaslr %d" % seed).digest()
    first, second = (int.from_bytes(draw[at : at + 8], "little") for at in (0, 8))
    virtual = first % max((_WINDOW - start - size) // align + 1, 1) * align
    physical = second % max((top - start - size) // align + 1, 1) * align
    return Shift(virtual, physical)


def relocate(memory: bytearray, base: int, found: Relocations, shift: int) -> None:
    """Correct the words in ``memory``, which is linked to lie at physical ``base``."""
    offset = _KERNEL_MAP + base
    try:
        for address in found.wide:
            at = address - offset
            value = _LONG.unpack_from(memory, at)[0] + shift
            _LONG.pack_into(memory, at, value & 0xFFFF_FFFF_FFFF_FFFF)
        for group, delta in ((found.inverse, -shift), (found.narrow, shift)):
            for address in group:
                at = address - offset
                value = _WORD.unpack_from(memory, at)[0] + delta
                _WORD.pack_into(memory, at, value & 0xFFFF_FFFF)
    except struct.error:
        raise UsageError(
            "--kaslr: the kernel's relocations point outside it; copy the bzImage again"
        ) from None
