"""Whatever a file holds, a loader makes a plan that fits the memory, or refuses in one line."""

import itertools
import struct
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.vmm.boot.linux.packing import packed
from vmm.boot.identify import plan
from vmm.boot.memmap import usable
from vmm.boot.request import BootModule, BootRequest
from vmm.errors import UsageError

if TYPE_CHECKING:
    from vmm.boot.plan import BootPlan

MEMORY = 4 << 20
PLAIN = BootRequest(MEMORY)
FULL = BootRequest(MEMORY, "a b", "k", (BootModule("m", b"12345", "w"),))
QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@cache
def samples(forge: Any) -> Any:
    note = forge.note(18, struct.pack("<I", 0x100000))
    relocatable = forge.tag(10, struct.pack("<4I", 0, 0xFFFFFFFF, 4096, 1))
    asked = forge.tag(1, struct.pack("<II", 1, 6))
    return [
        forge.code,
        forge.elf32(),
        forge.elf64(forge.part(0x100000), forge.part(0x110000, memsz=8192)),
        forge.elf64(notes=[note]),
        forge.elf32(extra=forge.multiboot1(3)),
        forge.flat1(bss=4096),
        forge.elf64(extra=forge.multiboot2(asked, relocatable)),
        forge.with_sections(forge.elf64(extra=forge.multiboot1()), [(0, 0, 0, 0), (2, 0, 64, 32)]),
        forge.bzimage(pref=1 << 20, sectors=2),
        forge.bzimage(packed(forge.elf64(), "xz"), sectors=2),
    ]


def attempt(data: Any) -> None:
    for request in (PLAIN, FULL):
        text = ""
        try:
            made: BootPlan | None = plan(data, request)
        except UsageError as error:
            text = str(error)
            made = None
        if made is None:
            assert "\n" not in text
            assert "; " in text  # what is wrong; what to do
            continue
        ordered = made.placements
        assert all(a.end <= b.gpa for a, b in itertools.pairwise(ordered))
        for part in ordered:
            assert any(a.start <= part.gpa and part.end <= a.end for a in usable(MEMORY))


@pytest.mark.parametrize("which", range(10))
def test_every_truncation(forge: Any, which: Any) -> None:
    image = samples(forge)[which]
    for length in range(len(image)):
        attempt(image[:length])


@pytest.mark.parametrize("which", range(10))
@QUICK
@given(data=st.data())
def test_corruption(forge: Any, which: Any, data: Any) -> None:
    image = bytearray(samples(forge)[which])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(image) - 1))
        image[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    attempt(bytes(image))


@QUICK
@given(st.binary(max_size=700))
def test_random_bytes(data: Any) -> None:
    attempt(data)


@QUICK
@given(st.binary(max_size=300))
def test_random_bytes_behind_an_elf_identification(data: Any) -> None:
    attempt(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\0\x3e\0" + data)


def test_every_truncation_of_an_elf_is_refused(forge: Any) -> None:
    image = forge.elf64()
    for length in range(4, len(image)):
        with pytest.raises(UsageError):
            plan(image[:length], PLAIN)
