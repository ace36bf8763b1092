"""String instructions where the host cannot judge: ports, partial runs, faults midway, wrap."""

from __future__ import annotations

import pytest

from tests.vmm.exits.emulator.fake import CODE, DATA, SIZE, WRITABLE, machine
from vmm.exits.emulate import Status, emulate

DIRECTION = 0x400
ZERO = 0x40
TOP = (1 << 64) - 1


def test_rep_insb_stores_what_the_port_gives() -> None:
    m = machine("f36c", rcx=3, rdx=0x1F0, rdi=DATA + 5)
    m.inputs = [0xAA, 0xBB, 0xCC]
    assert emulate(m).status is Status.DONE
    assert m.memory[5:8] == b"\xaa\xbb\xcc"
    assert (m.regs[1], m.regs[7], m.regs.rip) == (0, DATA + 8, CODE + 2)
    assert [access for access in m.accesses if access[0] == "in"] == [("in", 0x1F0, 1)] * 3


def test_ins_leaves_the_port_alone_when_the_store_would_fault() -> None:
    m = machine("f36d", rcx=4, rdx=0x1F0, rdi=DATA + WRITABLE - 8)
    m.inputs = [1, 2, 3, 4]
    outcome = emulate(m)
    assert (outcome.status, outcome.vector, outcome.address) == (
        Status.FAULT,
        14,
        DATA + WRITABLE,
    )
    assert m.inputs == [3, 4]
    assert (m.regs[1], m.regs[7], m.regs.rip) == (2, DATA + WRITABLE, CODE)


def test_port_number_is_dx_and_rex_w_does_not_widen() -> None:
    m = machine("486f", rdx=0xFFFF_1234, rsi=DATA)
    m.memory[:8] = bytes(range(1, 9))
    emulate(m)
    assert m.accesses[-1] == ("out", 0x1234, 4, 0x04030201)
    assert m.regs[6] == DATA + 4


def test_outsw_honours_a_segment_override_and_the_direction() -> None:
    m = machine("f3656 66f".replace(" ", ""), rflags=2 | DIRECTION, rcx=2, rdx=0x80, rsi=0x12)
    m.bases[5] = DATA
    m.memory[0x10:0x14] = b"\x01\x02\x03\x04"
    emulate(m)
    outs = [access for access in m.accesses if access[0] == "out"]
    assert outs == [("out", 0x80, 2, 0x0403), ("out", 0x80, 2, 0x0201)]
    assert m.regs[6] == 0xE


def test_stosb_is_bounded_and_goes_on_where_it_stopped() -> None:
    m = machine("f3aa", rcx=10, rdi=DATA, rax=0x77)
    assert emulate(m, 4).status is Status.DONE_PARTIAL
    assert (m.regs[1], m.regs[7], m.regs.rip) == (6, DATA + 4, CODE)
    assert emulate(m, 4).status is Status.DONE_PARTIAL
    assert emulate(m, 4).status is Status.DONE
    assert (m.regs[1], m.regs[7], m.regs.rip) == (0, DATA + 10, CODE + 2)
    assert m.memory[:11] == b"\x77" * 10 + b"\0"


def test_bound_that_is_just_enough_is_not_partial() -> None:
    m = machine("f3aa", rcx=4, rdi=DATA)
    assert emulate(m, 4).status is Status.DONE


def test_repe_ends_on_a_difference_within_the_bound() -> None:
    m = machine("f3a6", rcx=10, rsi=DATA, rdi=DATA + 0x100)
    m.memory[3] = 1
    assert emulate(m, 4).status is Status.DONE
    assert (m.regs[1], m.regs.rflags & ZERO) == (6, 0)


def test_fault_midway_keeps_what_was_done_and_gives_the_old_flags_back() -> None:
    """*REP*: after a fault in SCAS the flags are those from before the instruction."""
    m = machine("f2ae", rflags=2 | ZERO, rcx=99, rdi=DATA + SIZE - 3, rax=0xEE)
    outcome = emulate(m)
    assert (outcome.vector, outcome.error_code, outcome.address) == (14, 4, DATA + SIZE)
    assert (m.regs[1], m.regs[7], m.regs.rip) == (96, DATA + SIZE, CODE)
    assert m.regs.rflags == 2 | ZERO


def test_movs_to_a_missing_page_takes_nothing_from_the_source() -> None:
    m = machine("a5", rsi=DATA, rdi=DATA + WRITABLE - 2)
    assert emulate(m).address == DATA + WRITABLE
    assert m.accesses == []
    assert (m.regs[6], m.regs[7]) == (DATA, DATA + WRITABLE - 2)


@pytest.mark.parametrize(("code", "bits"), [("f3aa", 16), ("67f3aa", 32)])
def test_sixteen_bit_index_and_count_wrap(code: str, bits: int) -> None:
    """Only CX and DI take part, modulo 65536; what is above them stays."""
    m = machine(code, bits, rcx=0xABCD_0002, rdi=0x1234_FFFF, rax=0x55)
    m.bases[0] = DATA - 0xFFFF  # the second byte lands at ES:0, 64 KiB below
    outcome = emulate(m)
    assert outcome.vector == 14
    assert outcome.address == DATA - 0xFFFF
    assert m.memory[0] == 0x55
    assert (m.regs[1], m.regs[7]) == (0xABCD_0001, 0x1234_0000)


def test_address_size_32_in_64_bit_mode_clears_the_upper_halves() -> None:
    m = machine("67f3a4", rcx=TOP << 32 & TOP | 1, rsi=TOP << 32 & TOP | DATA, rdi=DATA + 9)
    m.memory[0] = 0x42
    emulate(m)
    assert (m.regs[1], m.regs[6], m.regs[7]) == (0, DATA + 1, DATA + 10)
    assert m.memory[9] == 0x42


def test_zero_count_touches_nothing() -> None:
    m = machine("f3a5", rcx=0, rsi=1, rdi=2)
    assert emulate(m).status is Status.DONE
    assert (m.accesses, m.regs.rip, m.regs[6], m.regs[7]) == ([], CODE + 2, 1, 2)


def test_bases_of_source_and_target_in_32_bit_mode() -> None:
    """The source takes DS or an override, the target always ES (*MOVS*)."""
    m = machine("26a4", 32, rsi=0x10, rdi=0x20)
    m.bases = [DATA, 0, 0, 0xDEAD0000, 0, 0]
    m.memory[0x10] = 0x99
    emulate(m)
    assert m.memory[0x20] == 0x99


def test_repne_repeats_a_store_as_rep_does() -> None:
    m = machine("f2aa", rcx=2, rdi=DATA, rax=0x31)
    emulate(m)
    assert m.memory[:3] == b"11\0"


def test_lock_on_a_string_instruction_is_undefined() -> None:
    assert emulate(machine("f0f3aa", rcx=1, rdi=DATA)).vector == 6
