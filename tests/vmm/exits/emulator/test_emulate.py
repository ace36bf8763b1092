"""The contract of `emulate`: outcomes, order of accesses, prefixes, and any bytes at all."""

from __future__ import annotations

import os
from random import Random

import pytest

from tests.vmm.exits.emulator.fake import CODE, DATA, SIZE, WRITABLE, Fake, Registers, machine
from vmm.exits.emulate import CACHE_ENTRIES, GuestFault, Status, emulate
from vmm.exits.emulator.plan import compile_plan

RESUME = 0x10000
CASES = max(20_000, int(os.environ.get("RING1_EMULATOR_CASES", "0")))


def test_resume_flag_ends_with_the_instruction() -> None:
    """*RF*: cleared after a success, kept where the instruction will be run again."""
    for code in ("8a03", "a4", "ff23"):
        m = machine(code, rflags=2 | RESUME, rbx=DATA, rsi=DATA, rdi=DATA)
        emulate(m)
        assert m.regs.rflags == 2, code
    m = machine("8a03", rflags=2 | RESUME)
    assert emulate(m).status is Status.FAULT
    assert m.regs.rflags == 2 | RESUME
    m = machine("f3aa", rflags=2 | RESUME, rdi=DATA, rcx=2)
    assert emulate(m, 1).status is Status.DONE_PARTIAL
    assert m.regs.rflags == 2 | RESUME


@pytest.mark.parametrize(
    "code",
    [
        "48870b", "480fc10b", "480fb10b", "48010b", "48ff03", "48f71b", "48d123",
        "480fab0b", "480fc70b", "480fa4cb05",
    ],
)  # fmt: skip
def test_read_modify_write_checks_the_store_before_it_reads(code: str) -> None:
    """A read-only page faults as a write (error code bit 1) and a device is not disturbed."""
    m = machine(code, rbx=DATA + WRITABLE, rcx=1)
    before = m.regs.snapshot()
    if code == "480fa4cb05":  # register form of SHLD: no fault possible
        assert emulate(m).status is Status.DONE
        return
    outcome = emulate(m)
    assert (outcome.status, outcome.vector, outcome.error_code) == (Status.FAULT, 14, 7)
    assert m.regs.snapshot() == before
    assert m.accesses == []


def test_one_access_each_for_a_device() -> None:
    for code, kinds in (
        ("8b03", ["read"]), ("8903", ["write"]), ("0103", ["read", "write"]),
        ("3903", ["read"]), ("8703", ["read", "write"]), ("0f4503", ["read"]),
        ("0f2803", ["read"]), ("0f2903", ["write"]), ("0f9403", ["write"]),
    ):  # fmt: skip
        m = machine(code, rbx=DATA + 0x40)
        assert emulate(m).status is Status.DONE
        assert [access[0] for access in m.accesses] == kinds, code


def test_page_crossing_is_one_call() -> None:
    m = machine("488903", rbx=DATA + 0xFFC, rax=0x1122334455667788)
    emulate(m)
    assert m.accesses == [("write", DATA + 0xFFC, 8, 0x1122334455667788)]
    m = machine("0f1003", rbx=DATA + SIZE - 8)
    assert emulate(m).address == DATA + SIZE


@pytest.mark.parametrize("code", ["f08b03", "f08903", "f03903", "f00fa303", "f001d8", "f0909090"])
def test_lock_where_it_is_not_allowed(code: str) -> None:
    """*LOCK*: #UD unless a listed instruction with a memory destination."""
    outcome = emulate(machine(code, rbx=DATA))
    assert (outcome.status, outcome.vector, outcome.error_code) == (Status.FAULT, 6, None)


@pytest.mark.parametrize(
    "code",
    [
        "8e03",
        "0fae03",
        "0fae0b",
        "0f22c0",
        "f4",
        "0f01f8",
        "c5fc1003",
        "0f6f03",
        "ff2b",
        "cf",
        "06",
    ],
)
def test_unsupported_changes_nothing_and_names_itself(code: str) -> None:
    m = machine(code + "90" * 8, rbx=DATA, rcx=1)
    before = m.regs.snapshot()
    outcome = emulate(m)
    assert outcome.status is Status.UNSUPPORTED
    assert outcome.text
    assert outcome.code.startswith(bytes.fromhex(code[:2]))
    assert m.regs.snapshot() == before
    assert m.accesses == []


def test_aligned_vector_moves_want_alignment() -> None:
    outcome = emulate(machine("0f2803", rbx=DATA + 8))
    assert (outcome.vector, outcome.error_code) == (13, 0)
    assert emulate(machine("0f1003", rbx=DATA + 8)).status is Status.DONE
    assert emulate(machine("480fc70b", rbx=DATA + 8)).vector == 13


def test_divide_error_has_no_error_code() -> None:
    outcome = emulate(machine("f733", rbx=DATA, rax=5))
    assert (outcome.status, outcome.vector, outcome.error_code) == (Status.FAULT, 0, None)


def test_pop_addresses_with_the_incremented_stack_pointer() -> None:
    """*POP*: a destination addressed by ESP is computed after the increment."""
    m = machine("8f442408", rsp=DATA)
    m.memory[:8] = b"12345678"
    emulate(m)
    assert m.memory[16:24] == b"12345678"
    m = machine("8f842400200000", rsp=DATA)
    assert emulate(m).status is Status.FAULT
    assert m.regs[4] == DATA


def test_fault_on_fetch_is_the_guests() -> None:
    class Missing(Fake):
        def fetch(self, count: int) -> bytes:
            raise GuestFault(14, 0x14, CODE)

    m = Missing(64, b"", Registers([0] * 16, CODE, 2))
    assert (emulate(m).vector, emulate(m).address) == (14, CODE)


def test_truncated_code_is_unsupported() -> None:
    for code in ("", "8b", "c60503", "f0", "66", "f3"):
        assert emulate(machine(code)).status is Status.UNSUPPORTED


def test_near_branches_ignore_66_in_64_bit_mode() -> None:
    """Intel; AMD truncates (the host cannot judge)."""
    m = machine("66ff13", rbx=DATA, rsp=DATA + 0x100)
    m.memory[:8] = (0x1234_5678_9ABC).to_bytes(8, "little")
    emulate(m)
    assert (m.regs.rip, m.regs[4]) == (0x1234_5678_9ABC, DATA + 0xF8)
    assert m.memory[0xF8:0x100] == (CODE + 3).to_bytes(8, "little")


def test_relative_call_and_return() -> None:
    m = machine("e8fbffffff", rsp=DATA + 0x100)
    emulate(m)
    assert (m.regs.rip, m.regs[4]) == (CODE, DATA + 0xF8)
    m.code = bytes.fromhex("c21000")
    emulate(m)
    assert (m.regs.rip, m.regs[4]) == (CODE + 5, DATA + 0x110)


def test_leave_and_enter() -> None:
    m = machine("c9", rbp=DATA + 0x40, rsp=DATA)
    m.memory[0x40:0x48] = (0x1234_5678_9ABC).to_bytes(8, "little")
    emulate(m)
    assert (m.regs[4], m.regs[5]) == (DATA + 0x48, 0x1234_5678_9ABC)
    m = machine("c8200002", rbp=DATA + 0x200, rsp=DATA + 0x100)  # enter 0x20, 2
    m.memory[0x1F8:0x200] = (0xABCD).to_bytes(8, "little")
    emulate(m)
    words = [int.from_bytes(m.memory[at : at + 8], "little") for at in (0xF8, 0xF0, 0xE8)]
    assert words == [DATA + 0x200, 0xABCD, DATA + 0xF8]
    assert (m.regs[4], m.regs[5]) == (DATA + 0xE8 - 0x20, DATA + 0xF8)


@pytest.mark.parametrize("code", ["ff23", "ff13", "c3"])
def test_a_branch_to_what_is_not_canonical_faults_itself(code: str) -> None:
    m = machine(code, rbx=DATA, rsp=DATA)
    m.memory[:8] = (0xAAAA_AAAA_AAAA_AAAA).to_bytes(8, "little")
    before = m.regs.snapshot()
    outcome = emulate(m)
    assert (outcome.status, outcome.vector, outcome.error_code) == (Status.FAULT, 13, 0)
    assert m.regs.snapshot() == before


def test_rex_w_goes_before_66() -> None:
    """*REX.W*: "66H prefix is ignored" beside it, in whatever form."""
    for code, access in (
        ("664c0f38f133", ("write", DATA, 8, 0xBEBAFECA00000000)),
        ("66480f38f033", ("read", DATA, 8)),
        ("66480fbc33", ("read", DATA, 8)),
        ("664c8933", ("write", DATA, 8, 0xCAFEBABE)),
        ("664863f3", None),
        ("6663 03".replace(" ", ""), ("read", DATA, 2)),
    ):
        m = machine(code, rbx=DATA, r14=0xCAFEBABE)
        assert emulate(m).status is Status.DONE
        assert m.accesses == ([access] if access else []), code


class Anywhere(Fake):
    """A machine with memory at every address, that a random program cannot make fault."""

    def read(self, linear: int, size: int) -> int:
        assert 0 <= linear < 1 << 64
        return linear * 0x9E3779B97F4A7C15 % (1 << 8 * size)

    def write(self, linear: int, size: int, value: int) -> None:
        assert 0 <= linear < 1 << 64
        assert 0 <= value < 1 << 8 * size

    def check_write(self, linear: int, size: int) -> None:
        assert 0 <= linear < 1 << 64

    def port_in(self, port: int, size: int) -> int:
        return port & 0xFF


INTERESTING = bytes.fromhex("f0f2f3666726364849 0f0f0f0f0f38c7bafff6f7d1d3c0a4a5aaab6c8f00")


def test_random_bytes_never_raise_and_never_half_happen() -> None:
    random = Random(7)
    seen = dict.fromkeys(Status, 0)
    for _ in range(CASES):
        code = bytes(
            random.choice(INTERESTING) if random.random() < 0.4 else random.getrandbits(8)
            for _ in range(15)
        )
        bits = random.choice((16, 32, 64))
        regs = Registers([random.getrandbits(64) for _ in range(16)], random.getrandbits(16), 2)
        m = Anywhere(bits, code, regs, stack_bits=bits)
        before = m.regs.snapshot()
        outcome = emulate(m, 3)
        seen[outcome.status] += 1
        if outcome.status in (Status.FAULT, Status.UNSUPPORTED):
            assert m.regs.snapshot() == before, code.hex()
    assert min(seen.values()) > 20, seen


def test_the_cache_is_bounded_and_harmless() -> None:
    for number in range(CACHE_ENTRIES + 10):
        m = machine(b"\xb8" + number.to_bytes(4, "little"))
        emulate(m)
        assert m.regs[0] == number


def test_plans_hold_no_machine() -> None:
    plan = compile_plan(bytes.fromhex("8b03"), 64)
    for value in (1, 2):
        m = machine("8b03", rbx=DATA)
        m.memory[0] = value
        plan(m, 1)
        assert m.regs[0] == value
