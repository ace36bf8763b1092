"""KASLR on the host: every kind of relocation, where the kernel may go, and that a seed decides."""

import struct
from dataclasses import replace
from typing import Any

import pytest

from tests.vmm.boot.linux.packing import packed
from vmm.boot.identify import plan
from vmm.boot.request import BootModule, BootRequest
from vmm.config import KernelEntry
from vmm.errors import UsageError

ALIGN = 1 << 21
REQUEST = BootRequest(256 << 20, "", "k", (BootModule("i", bytes(5000)),), kaslr=1)


def image_of(forge: Any, **options: Any) -> Any:
    return forge.bzimage(packed(forge.kernel(**options), "gzip"), init_size=16 << 20)


def test_relocated_words(forge: Any, ram: Any) -> None:
    image = image_of(forge)
    seen = set()
    for seed in range(40):
        made = plan(image, replace(REQUEST, kaslr=seed))
        start, memory = made.start.rip, ram(made)
        wide, narrow, inverse = memory.words(start + 0x100, "<QII")
        shift = wide - 0xFFFF_FFFF_8100_0000
        assert shift % ALIGN == start % ALIGN == 0
        assert 0 <= shift <= (1 << 30) - (32 << 20)  # the kernel's 1 GiB window
        assert 0x1000000 <= start <= (256 << 20) - 8192 - (16 << 20)  # below the initrd
        assert narrow == 0x8100_1000 + shift
        assert inverse == (0x1000 - shift) & 0xFFFF_FFFF
        assert memory.words(made.start.gpr["rsi"] + 0x211, "<B")[0] & 2  # KASLR_FLAG
        seen.add((shift, start))
    assert len({shift for shift, _ in seen}) > 30
    assert len({start for _, start in seen}) > 25


def test_a_seed_decides(forge: Any) -> None:
    image = image_of(forge)
    assert plan(image, REQUEST).placements == plan(image, REQUEST).placements
    assert plan(image, REQUEST).start == plan(image, REQUEST).start


def test_new_kernels_have_no_inverse_relocations(forge: Any, ram: Any) -> None:
    made = plan(image_of(forge, relocations=(0, 0x8100_0100, 0, 0x8100_0108)), REQUEST)
    wide, narrow, inverse = ram(made).words(made.start.rip + 0x100, "<QII")
    assert wide - 0xFFFF_FFFF_8100_0000 == narrow - 0x8100_1000 != 0
    assert inverse == 0x1000


def test_nokaslr_is_obeyed(forge: Any, ram: Any) -> None:
    made = plan(image_of(forge), replace(REQUEST, cmdline="quiet nokaslr"))
    assert made.start.rip == 0x1000000
    assert ram(made).words(made.start.gpr["rsi"] + 0x211, "<B")[0] & 2 == 0


@pytest.mark.parametrize(
    "relocations",
    [(), (1, 2), (0,), (0, 0, 0, 0), (0, 0x8200_0000, 0, 0), (0, 0, 0x8100_1FFD), (0, 0, 0x1000)],
)
def test_relocations_that_are_none(forge: Any, relocations: Any) -> None:
    with pytest.raises(UsageError, match="--kaslr"):
        plan(image_of(forge, relocations=relocations), REQUEST)


def test_the_decompressor_has_its_own(forge: Any) -> None:
    with pytest.raises(UsageError, match="nokaslr"):
        plan(image_of(forge), replace(REQUEST, kernel_entry=KernelEntry.DECOMPRESSOR))


def test_a_memory_with_one_place(forge: Any, ram: Any) -> None:
    """Where nothing else fits, the kernel stays; virtual addresses are shifted all the same."""
    request = replace(REQUEST, memory=33 << 20, modules=())
    made = plan(image_of(forge), request)
    assert made.start.rip == 0x1000000
    wide = struct.unpack("<Q", ram(made).read(0x1000100, 8))[0]
    assert wide != 0xFFFF_FFFF_8100_0000
