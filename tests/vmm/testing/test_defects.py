"""Instructions that Unicorn's core gets wrong and the engine carries out itself (cext/defects.c).

Each was a difference that `ring1 fuzz` found against a processor; values are by the manual's
"Operation" sections.
"""

import pytest

from vmm.testing.environment import Environment, Mode
from vmm.testing.guest import Guest

CF, PF, AF, ZF, SF, OF = 1, 4, 0x10, 0x40, 0x80, 0x800
LONG, USER, COMPAT = Environment(), Environment(ring=3), Environment(Mode.COMPAT32)


@pytest.fixture(scope="module")
def guest() -> Guest:
    return Guest(memory="16M")


def run(guest: Guest, code: str | bytes, env: Environment = LONG, /, **registers: int) -> None:
    guest.reset(env)
    for name, value in registers.items():
        setattr(guest.regs, name, value)
    if isinstance(code, bytes):
        guest.load(code)
    else:
        guest.asm(code)
    guest.run()


@pytest.mark.parametrize(
    ("code", "registers", "result", "flags"),
    [
        ("blsi rax, rbx", {"rbx": 0x30}, 0x10, CF),
        ("blsi rax, rbx", {"rbx": 0}, 0, ZF),
        ("blsi eax, ebx", {"rbx": 0x80000000}, 0x80000000, CF | SF),
        ("bzhi eax, ebx, ecx", {"rbx": 0xF2345678, "rcx": 40}, 0xF2345678, CF | SF),
        ("bzhi rax, rbx, rcx", {"rbx": 1 << 63 | 5, "rcx": 64}, 1 << 63 | 5, CF | SF),
        ("bzhi rax, rbx, rcx", {"rbx": 0xFFFF, "rcx": 8}, 0xFF, 0),
        ("bextr eax, ebx, ecx", {"rbx": 0xF2345678, "rcx": 0x2000}, 0xF2345678, 0),
        ("bextr rax, rbx, rcx", {"rbx": 0xABCD, "rcx": 0x0804}, 0xBC, 0),
        ("bextr rax, rbx, rcx", {"rbx": 0xABCD, "rcx": 0x0840}, 0, ZF),
        ("pdep eax, ebx, ecx", {"rbx": 0xFF, "rcx": 0xF_0000_000F}, 0xF, None),
    ],
)
def test_bit_manipulation(
    guest: Guest, code: str, registers: dict[str, int], result: int, flags: int | None
) -> None:
    run(guest, code, LONG, **registers)
    assert guest.regs.rax == result
    if flags is not None:
        assert guest.regs.rflags & (CF | ZF | SF | OF) == flags


def test_operands_behind_an_immediate(guest: Guest) -> None:
    guest.reset(LONG)
    guest.memory[0x20000:0x20008] = (0x1122334455667788).to_bytes(8, "little")
    guest.asm("rorx rax, qword ptr [rip + 0xfff6], 8\nshld dword ptr [rip + 0xffee], ecx, 4")
    guest.regs.rcx = 0xA0000000
    guest.run()
    assert guest.regs.rax == 0x8811223344556677
    assert guest.memory.read(0x20000, 8).hex() == "8a78675644332211"


def test_lahf_and_sahf_ignore_rex(guest: Guest) -> None:
    run(guest, bytes.fromhex("f9409f"), rax=0, rsp=0xC000)
    assert (guest.regs.rax, guest.regs.rsp) == (0x0300, 0xC000)
    run(guest, bytes.fromhex("409e"), rax=0xC500)
    assert guest.regs.rflags & 0xFF == 0xC7


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", 0xFFFFFFFF_FFFFFFFF_00000000_FFFFFFFF),
        ("66", 0xFFFFFFFFFFFFFFFF_0000000000000000),
        ("f3", 0x3F8000003F8000007FC00000_FFFFFFFF),
        ("f2", 0x3F8000003F800000_0000000000000000),
    ],
)
def test_cmpord(guest: Guest, prefix: str, expected: int) -> None:
    guest.reset(LONG)
    guest.set_xmm(1, 0x3F8000003F8000007FC000003F800000)
    guest.set_xmm(2, 0x3F8000003F8000007FF8000040000000)
    guest.load(bytes.fromhex(prefix + "0fc2ca07"))
    before = guest.regs.as_dict()
    guest.run()
    assert guest.xmm(1) == expected
    assert {k: v for k, v in guest.regs.as_dict().items() if k != "rip"} == {
        k: v for k, v in before.items() if k != "rip"
    }


def test_string_compares_never_read_the_host(guest: Guest) -> None:
    """A length of -2^31 has no magnitude in 32 bits: Unicorn read before an array, and died."""
    for control in range(128):
        guest.reset(LONG)
        guest.regs.rax = guest.regs.rdx = 0x80000000
        guest.set_xmm(1, int.from_bytes(b"abcdefghijklmnop", "little"))
        guest.set_xmm(2, int.from_bytes(b"abcdefghijklmnop", "little"))
        guest.load(bytes.fromhex("660f3a61ca") + bytes([control]))
        guest.run()
        assert guest.fault is None
        assert guest.regs.rflags & (ZF | SF) == 0  # neither string ends early


@pytest.mark.parametrize(
    ("control", "lengths", "rcx", "flags"),
    [
        (0x08, (16, 16), 0, CF | OF),  # equal each, bytes: all match
        (0x18, (16, 16), 16, 0),  # negated: none
        (0x48, (16, 16), 15, CF | OF),  # the most significant match
        (0x00, (2, 3), 0, CF | OF | ZF | SF),  # equal any: 'a' or 'b' in "abc"
        (0x0C, (3, 16), 0, CF | OF | SF),  # equal ordered: "abc" at 0
        (0x09, (8, 8), 0, CF | OF),  # words
    ],
)
def test_explicit_string_compares(
    guest: Guest, control: int, lengths: tuple[int, int], rcx: int, flags: int
) -> None:
    guest.reset(LONG)
    guest.regs.rax, guest.regs.rdx = lengths
    guest.set_xmm(1, int.from_bytes(b"abcdefghijklmnop", "little"))
    guest.set_xmm(2, int.from_bytes(b"abcdefghijklmnop", "little"))
    guest.load(bytes.fromhex("660f3a61ca") + bytes([control]))
    guest.run()
    assert guest.regs.rcx == rcx
    assert guest.regs.rflags & (CF | OF | ZF | SF | AF | PF) == flags


@pytest.mark.parametrize(("needle", "rcx"), [(b"op", 14), (b"pq", 15), (b"q", 16), (b"abc", 0)])
def test_a_match_that_the_end_cuts_short(guest: Guest, needle: bytes, rcx: int) -> None:
    """PCMPISTRI, equal ordered: the last bytes match a beginning of the needle."""
    guest.reset(LONG)
    guest.set_xmm(1, int.from_bytes(needle, "little"))
    guest.set_xmm(2, int.from_bytes(b"abcdefghijklmnop", "little"))
    guest.asm("pcmpistri xmm1, xmm2, 0x0c")
    guest.run()
    assert guest.regs.rcx == rcx


def test_horizontal_sums_of_a_register_with_itself(guest: Guest) -> None:
    guest.reset(LONG)
    guest.set_xmm(1, 0x0008000700060005_0004000300020001)
    guest.asm("phaddw xmm1, xmm1")
    guest.run()
    assert guest.xmm(1) == 0x000F000B00070003_000F000B00070003
    run(guest, "movq mm1, [0x20000]; phsubd mm1, mm1; movq rax, mm1")
    assert guest.regs.rax == 0


def test_cmpxchg_that_fails_leaves_its_register_alone(guest: Guest) -> None:
    run(guest, "cmpxchg ebx, ecx", rax=1, rbx=0xAAAAAAAA_00000002, rcx=3)
    assert (guest.regs.rax, guest.regs.rbx) == (2, 0xAAAAAAAA_00000002)
    run(guest, "cmpxchg ebx, ecx", rax=2, rbx=0xAAAAAAAA_00000002, rcx=3)
    assert (guest.regs.rax, guest.regs.rbx) == (2, 3)
    assert guest.regs.rflags & ZF


@pytest.mark.parametrize(
    "code", ["f00f1f00", "f0f30fbcc0", "f0f20f38f0c1", "f00200", "f00fa200", "f0f7d8"]
)
def test_lock_is_refused_where_it_has_no_meaning(guest: Guest, code: str) -> None:
    run(guest, bytes.fromhex(code), rax=0x400000)
    assert guest.fault is not None
    assert (guest.fault.vector, guest.fault.rip) == (6, guest.code)


def test_locked_neg(guest: Guest) -> None:
    guest.reset(LONG)
    guest.memory[0x20000] = 1
    guest.asm("lock neg dword ptr [0x20000]")
    guest.run()
    assert guest.memory[0x20000:0x20004] == b"\xff\xff\xff\xff"
    assert guest.regs.rflags & (CF | ZF | SF | OF | PF | AF) == CF | SF | PF | AF


def test_emms_resets_top(guest: Guest) -> None:
    run(guest, "fninit; fld1; fld1; emms; fnstsw ax")
    assert guest.regs.rax & 0x3800 == 0


def test_swapgs_exists_in_64_bit_code_only(guest: Guest) -> None:
    run(guest, bytes.fromhex("0f01f8"), COMPAT)
    assert guest.fault is not None
    assert guest.fault.vector == 6
    run(guest, bytes.fromhex("0f01f8"), USER)
    assert guest.fault is not None
    assert guest.fault.vector == 13


def test_int_6_is_refused_at_itself(guest: Guest) -> None:
    run(guest, "nop; int 6", USER)
    assert guest.fault is not None
    assert (guest.fault.vector, guest.fault.error, guest.fault.rip) == (13, 0x32, 0x10001)


@pytest.mark.parametrize("line", ["ror dword ptr [rbx], 3", "cmpxchg [rbx], ecx", "add [rbx], cl"])
def test_a_read_modify_write_faults_as_a_write(guest: Guest, line: str) -> None:
    env = Environment(ring=3, pages=("0x300000 ru", "0x301000 none"))
    for address, error, cr2 in ((0x301000, 6, 0x301000), (0x300FFF, 7, 0x300FFF)):
        run(guest, line, env, rbx=address)
        assert guest.fault is not None
        assert (guest.fault.vector, guest.fault.error, guest.fault.address) == (14, error, cr2)
