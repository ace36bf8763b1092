"""Effective addresses as the manual's tables give them (Intel SDM, *Addressing-Mode Encoding*)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.vmm.exits.emulator.fake import CODE, DATA, machine
from vmm.exits.emulate import Status, emulate

if TYPE_CHECKING:
    from collections.abc import Sequence

ES, CS, SS, DS, FS, GS = range(6)
TOP32 = (1 << 32) - 1
# Linear bases that tell by the address which segment and which registers were taken.
BASES = [DATA + 0x400, 0, DATA + 0x800, DATA, DATA + 0xC00, DATA + 0x1000]
SIXTEEN = {"rbx": 0x10, "rbp": 0x20, "rsi": 0x3, "rdi": 0x5}


def touched(code: str, bits: int, bases: Sequence[int] = BASES, **regs: int) -> int:
    """Return the linear address that the instruction's one memory access went to."""
    m = machine(code, bits, rip=0x100 if bits == 16 else CODE, **regs)
    m.bases = list(bases)
    outcome = emulate(m)
    if outcome.status is Status.FAULT:
        assert outcome.address is not None
        return outcome.address
    linear = m.accesses[0][1]
    assert isinstance(linear, int)
    return linear


@pytest.mark.parametrize(
    ("modrm", "segment", "offset"),
    [
        ("00", DS, 0x13), ("01", DS, 0x15), ("02", SS, 0x23), ("03", SS, 0x25),
        ("04", DS, 0x03), ("05", DS, 0x05), ("063412", DS, 0x1234), ("07", DS, 0x10),
        ("40f0", DS, 0x03), ("42ff", SS, 0x22), ("4600", SS, 0x20), ("46e0", SS, 0x0),
        ("807f01", DS, 0x192), ("8600ff", SS, 0xFF20), ("44f0", DS, 0xFFF3),
    ],
)  # fmt: skip
def test_sixteen_bit_forms(modrm: str, segment: int, offset: int) -> None:
    """*16-Bit Addressing Forms with the ModR/M Byte*: BP means SS, offsets wrap at 64 KiB."""
    assert touched(f"8a{modrm}", 16, BASES, **SIXTEEN) == BASES[segment] + offset
    assert touched(f"678a{modrm}", 32, BASES, **SIXTEEN) == BASES[segment] + offset


def test_sixteen_bit_sum_wraps_and_ignores_upper_halves() -> None:
    assert touched("8a00", 16, rbx=0xAAAA_FFFF, rsi=0xBBBB_0003) == DATA + 2


@pytest.mark.parametrize(
    ("code", "linear"),
    [
        ("8a03", DATA + 0x10),
        ("8a4500", DATA + 0x800 + 0x20),  # EBP: SS
        ("8a0424", DATA + 0x800 + 0x40),  # ESP: SS
        ("8a046b", DATA + 0x10 + 0x40),  # EBP as index: DS
        ("8a442b01", DATA + 0x31),
        ("8a441d01", DATA + 0x800 + 0x31),  # EBP base, EBX index
        ("8a04b504000000", DATA + 4 + 4 * 3),  # no base
        ("8a0578563412", (DATA + 0x12345678) & TOP32),
        ("8a83ffffffff", DATA + 0xF),
        ("268a03", DATA + 0x410),
        ("368a03", DATA + 0x810),
        ("3e8a4500", DATA + 0x20),
        ("648a03", DATA + 0xC10),
        ("26648a03", DATA + 0xC10),  # the last override counts
        ("a010000000", DATA + 0x10),
    ],
)
def test_thirty_two_bit_forms(code: str, linear: int) -> None:
    """*32-Bit Addressing Forms with the ModR/M Byte* and the SIB byte's."""
    got = touched(code, 32, rbx=0x10, rbp=0x20, rsi=3, rsp=0x40)
    assert got == linear


def test_linear_addresses_wrap_at_four_gigabytes_outside_64_bit_mode() -> None:
    bases = [0, 0, 0, 0xFFFF_FFF0, 0, 0]
    assert touched("8a03", 32, bases, rbx=DATA + 0x20) == DATA + 0x10


@pytest.mark.parametrize(
    ("code", "linear"),
    [
        ("8a05f8ffffff", CODE + 6 - 8),  # RIP-relative: from the next instruction
        ("c605f8ffffff11", CODE + 7 - 8),  # also past an immediate
        ("678a05f8ffffff", CODE + 7 - 8),
        ("8a042500100020", DATA + 0x1000),
        ("a00010002000000000", DATA + 0x1000),  # moffs64
        ("67a000100020", DATA + 0x1000),
        ("8a03", DATA + 0x20),
        ("368a03", DATA + 0x20),  # SS, ES, CS, DS have no base in 64-bit mode
        ("658a03", DATA + 0x1000 + DATA + 0x20),
        ("65678a03", DATA + 0x1000 + DATA + 0x20),
        ("418a4500", 0x30),  # R13 needs a displacement byte
        ("438a0424", 0x77 + 0x77),  # R12 + R12: R12 as index exists, RSP does not
    ],
)
def test_sixty_four_bit_forms(code: str, linear: int) -> None:
    got = touched(code, 64, rbx=DATA + 0x20, r13=0x30, r12=0x77)
    assert got == linear


def test_address_size_32_truncates_before_the_base_is_added() -> None:
    high = 0xFFFF_FFFF_0000_0000
    assert touched("65678a03", 64, rbx=high | 0x30) == BASES[GS] + 0x30
    assert touched("678a4310", 64, rbx=high | 0xFFFF_FFF8) == 8


def test_negative_displacement_wraps_to_the_top_in_64_bit_mode() -> None:
    assert touched("8a43f0", 64, rbx=0) == (1 << 64) - 0x10


def test_instruction_pointer_wraps_with_the_code_size() -> None:
    for bits, last in ((16, 0xFFFF), (32, TOP32), (64, (1 << 64) - 1)):
        m = machine("90", bits, rip=last)
        assert emulate(m).status is Status.DONE
        assert m.regs.rip == 0


def test_sixteen_bit_code_with_both_size_prefixes() -> None:
    """MOV [EBX], EAX and an SSE load, which keystone does not assemble for 16-bit code."""
    m = machine("66678903", 16, rbx=0x10, rax=0xA1B2C3D4, rip=0)
    m.bases = list(BASES)
    emulate(m)
    assert m.memory[0x10:0x14] == bytes.fromhex("d4c3b2a1")
    m = machine("660f6f07", 16, rbx=0x10, rip=0)
    m.bases = list(BASES)
    m.memory[0x10:0x20] = bytes(range(16))
    emulate(m)
    assert m.vectors[0] == int.from_bytes(bytes(range(16)), "little")


def test_stack_follows_its_own_size() -> None:
    """PUSH in 16-bit code on a 32-bit stack, and the other way round."""
    m = machine("ff37", 16, rsp=0x10008, rbx=0x20, rip=0)
    m.bases, m.stack_bits = [0, 0, DATA - 0x10000, DATA, 0, 0], 32
    m.memory[0x20:0x22] = b"\x34\x12"
    emulate(m)
    assert (m.regs[4], bytes(m.memory[6:8])) == (0x10006, b"\x34\x12")
    m = machine("ff33", 32, rsp=0xABCD_0002, rbx=0x20)
    m.bases, m.stack_bits = [0, 0, DATA - 0xFFFE + 0x100, DATA, 0, 0], 16
    m.memory[0x20:0x24] = b"\x78\x56\x34\x12"
    emulate(m)
    assert (m.regs[4], bytes(m.memory[0x100:0x104])) == (0xABCD_FFFE, b"\x78\x56\x34\x12")
