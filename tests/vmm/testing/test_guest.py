"""The guest of a test: every mode and ring, faults where they happen, and a reset that is whole."""

from contextlib import closing
from pathlib import Path

import pytest

from vmm.errors import UsageError
from vmm.state import snapshot as state
from vmm.testing.assembler import AssemblyError, assemble
from vmm.testing.cases.case import read_cases
from vmm.testing.cases.run import load_case
from vmm.testing.cases.write import case_of
from vmm.testing.environment import Environment, Mode
from vmm.testing.guest import Guest, NeverEndedError
from vmm.testing.layout import CODE, STACK
from vmm.testing.paging import Scheme

ALL = [
    Environment(mode, ring)
    for mode in Mode
    for ring in (0, 3)
    if not (ring and mode is Mode.REAL16)
]


def asked(guest: Guest) -> list[str]:
    """The exits that an instruction asked for: shadow tables and trap have faults beside them."""
    names = [vmexit.name for vmexit in guest.exits]
    return [name for name in names if name not in {"EXCEPTION_NMI", "INT"}]


@pytest.fixture(scope="module")
def guest() -> Guest:
    return Guest(memory="16M")


@pytest.mark.parametrize("environment", ALL, ids=lambda e: f"{e.mode}-ring{e.ring}")
def test_code_runs_and_faults_in_every_mode(guest: Guest, environment: Environment) -> None:
    guest.reset(environment)
    guest.asm("mov eax, 5; add eax, 6")
    guest.run()
    assert guest.regs.rax == 11
    assert guest.fault is None
    assert asked(guest) == ["HLT"]
    guest.reset()
    guest.asm("nop; ud2")
    guest.run()
    assert guest.fault is not None
    start = 0x10000 if environment.mode.bits > 16 else 0
    assert (guest.fault.vector, guest.fault.rip) == (6, start + 1)


@pytest.mark.parametrize(
    ("mode", "scheme"),
    [
        (Mode.PROT32, Scheme.BITS32),
        (Mode.PROT32, Scheme.PAE),
        (Mode.LONG64, Scheme.LEVEL4),
        (Mode.LONG64, Scheme.LEVEL5),
    ],
)
def test_pages_as_described(guest: Guest, mode: Mode, scheme: Scheme) -> None:
    lines = ("0x20000 -> 0x200000 ru", "0x21000 none", "0x22000 rw", "0x23000 rwu")
    guest.reset(Environment(mode, 3, scheme, lines))
    register = "rbx" if mode is Mode.LONG64 else "ebx"
    guest.memory[0x200000:0x200004] = b"\x78\x56\x34\x12"
    for address, vector, error in ((0x21000, 14, 6), (0x22000, 14, 7), (0x20000, 14, 7)):
        guest.asm(f"mov ebx, {address:#x}; mov ecx, [0x20000]; mov [{register}], ecx")
        guest.regs.rip = guest.code
        guest.run()
        assert guest.fault is not None
        assert (guest.fault.vector, guest.fault.error) == (vector, error)
        assert guest.fault.address == address
        assert guest.regs.rcx == 0x12345678
        guest.reset()
        guest.memory[0x200000:0x200004] = b"\x78\x56\x34\x12"


def test_reserved_and_no_execute_bits(guest: Guest) -> None:
    lines = ("0x300000 rwz", "0x301000 rw")
    guest.reset(Environment(Mode.LONG64, 0, None, lines))
    for line, error in (("mov al, [0x300000]", 9), ("mov rax, 0x301000; jmp rax", 0x11)):
        guest.asm(line)
        guest.run()
        assert guest.fault is not None
        assert (guest.fault.vector, guest.fault.error) == (14, error)
        guest.reset()


def test_a_reset_is_whole(guest: Guest) -> None:
    """Memory, registers, XMM, MSRs and devices: the digest is that of the slow way back."""
    guest.reset(Environment())
    fresh = guest.digest()
    dirtying = """
        mov al, 0x34; out 0x43, al; mov al, 7; out 0x40, al; out 0x40, al
        mov al, 5; out 0x70, al; mov al, 9; out 0x71, al
        mov eax, 0x12345678; mov [0x300000], eax; mov cr2, rax
        mov eax, 0xfee00080; mov dword ptr [rax], 0x20
        mov ecx, 0xc0000082; mov edx, 0; wrmsr
        mov ecx, 0x3b; mov eax, 99; wrmsr
        movq xmm3, rsp; fld1; mov ax, 0x28; str ax
    """
    guest.asm(dirtying)
    guest.run()
    assert guest.fault is None
    assert guest.digest() != fresh
    guest.reset()
    assert guest.digest() == fresh
    slow = guest.snapshot()
    guest.asm("mov [0x300000], rsp; rdtsc; cpuid; hlt; fldpi")
    guest.run()
    state.put(slow, guest.keeper, guest.vcpus, guest.board)
    assert guest.digest() == fresh


def test_a_device_that_only_python_touched_is_put_back(guest: Guest) -> None:
    guest.reset(Environment())
    fresh = guest.digest()
    guest.asm("nop")
    guest.board.receive(b"x")
    guest.run()
    assert guest.digest() != fresh
    guest.reset()
    assert guest.digest() == fresh


def test_only_what_was_written_is_copied(guest: Guest) -> None:
    guest.reset(Environment())
    for page in range(100):
        guest.memory[0x200000 + page * 4096] = 1
    assert guest.pcpu.revert(guest.keeper.mirror({}), 0) == 0  # pages below 0: none, the log clears
    guest.restore(guest.snapshot())


def test_steps(guest: Guest) -> None:
    guest.reset(Environment())
    code = guest.asm("mov esi, 3\nagain: cpuid\n dec esi\n jnz again")
    assert guest.step() == guest.code + 5
    assert guest.step(2) == guest.code + 9
    assert asked(guest) == ["CPUID"]
    guest.reset()
    guest.load(code)
    guest.run()
    assert guest.exits[-1].name == "HLT"


def test_a_run_goes_on_behind_a_halt(guest: Guest) -> None:
    guest.reset(Environment())
    guest.asm("mov eax, 1; hlt; mov eax, 2")
    guest.run()
    assert guest.regs.rax == 1
    guest.run()
    assert guest.regs.rax == 2


def test_an_endless_test_says_so(guest: Guest) -> None:
    guest.reset(Environment())
    guest.asm("again: cpuid\n jmp again")
    with pytest.raises(NeverEndedError, match=r"(?s)within 1000 .*<CPUID at 0x10000") as caught:
        guest.run(limit=1000)
    assert str(caught.value).count("<CPUID") == 8


def test_execution_controls_by_name(guest: Guest) -> None:
    guest.reset(Environment())
    guest.control(mov_dr_exiting=1, rdtsc_exiting=1)
    guest.asm("mov dr7, rax; rdtsc")
    guest.run()
    assert asked(guest) == ["DR_ACCESS", "RDTSC", "HLT"]
    with pytest.raises(UsageError, match="'no_such' is no execution control"):
        guest.control(no_such=1)


@pytest.mark.parametrize(
    ("text", "bits", "code"),
    [
        ("endbr64", 64, "f30f1efa"),
        ("umwait ecx", 64, "f20faef1"),
        ("tpause r9d", 64, "66410faef1"),
        ("rdpid rax", 64, "f30fc7f8"),
        ("sysretq", 64, "480f07"),
        ("wbnoinvd", 64, "f30f09"),
        ("vmrun rax", 64, "0f01d8"),
        ("vmrun eax", 64, "670f01d8"),
        ("invlpga rax, ecx", 64, "0f01df"),
        ("jmp far 0x18:0x1234", 32, "ea341200001800"),
        ("call far 0x18:0x1234", 16, "9a34121800"),
        ("jmp far fword ptr [rax]", 64, "ff28"),
        ("call far tbyte ptr [rbx + 0x10]", 64, "48ff5b10"),
        ("jmp far dword ptr [bx]", 16, "ff2f"),
        ("jmp far tbyte ptr [r9]", 64, "49ff29"),
        ("x: endbr64\njmp x", 64, "f30f1efaebfa"),
        ("nop # says why\nhlt", 64, "90f4"),
        ("nop; x: endbr64; jmp x", 64, "90f30f1efaebfa"),
        ("movdiri [rax], ebx", 64, "0f38f918"),
        ("ud1 eax, ebx", 64, "0fb9c3"),
        ("rstorssp [rax + 8]", 64, "f30f016808"),
        ("incsspq rcx", 64, "f3480faee9"),
        ("ret", 16, "c3"),
        ("retf 4", 16, "ca0400"),
        ("push 0x1234", 16, "683412"),
        ("push -1", 16, "6aff"),
        ("call 0x10", 16, "e80d00"),
        ("f: nop; call f; call ax; ret", 16, "90e8fcffffd0c3"),
    ],
)
def test_macros(text: str, bits: int, code: str) -> None:
    assert assemble(text, 0, bits).hex() == code


def test_what_does_not_assemble_shows_its_line() -> None:
    with pytest.raises(AssemblyError, match=r"'mov eax, bogus!' does not assemble in 64-bit code"):
        assemble("nop\nmov eax, bogus!\nhlt")
    with pytest.raises(AssemblyError, match=r"'add rax, al' does not assemble"):
        assemble("top: nop\nadd rax, al\njmp top")


@pytest.mark.parametrize(
    ("text", "bits", "why"),
    [
        ("mov al, 0x1ff", 64, "keystone makes 0xff of 0x1ff"),
        ("push 0x123456789", 64, "keystone makes"),
        ("push 0x80000000", 64, "keystone makes"),
        ("mov rax, [rbx+0x123456789]", 64, "makes 0x23456789"),
        ("mov eax, [0x301000]", 16, "makes 0x1000"),
        ("mov rax, [rbx", 64, "a bracket is missing"),
        ("top: nop\nmov al, 0x1ff\njmp top", 64, "keystone makes"),
    ],
)
def test_what_keystone_cuts_is_refused(text: str, bits: int, why: str) -> None:
    with pytest.raises(AssemblyError, match=why):
        assemble(text, 0, bits)


@pytest.mark.parametrize(
    "text",
    [
        "mov rax, 0xffffffff80000000", "add al, 0xff", "mov rax, [rip+0x10]", "jmp 0x20010",
        "mov eax, [0x301000]", "mov rax, [rbx+rcx*8-0x10]", "enter 8, 1", "int 0x80", "push -1",
        "mov rbx, [0x20000]", "mov qword ptr [0x20000], 5",
        "mov rax, 5+3", "shl eax, 1", "mov dword ptr [0x20000], 5", "out 0x80, al",
    ],
)  # fmt: skip
def test_numbers_that_fit(text: str) -> None:
    assert assemble(text, 0x10000)


def test_absolute_addresses_are_what_they_say() -> None:
    """With REX.W keystone leaves an address as it is: a RIP-relative operand reads elsewhere."""
    assert assemble("mov rbx, [0x20000]", 0x10005).hex() == "488b1df4ff0000"
    assert assemble("nop; mov ebx, [0x20000]", 0x10005).hex() == "908b1df4ff0000"


def test_a_case_has_all_that_was_set_before_the_run(tmp_path: Path) -> None:
    with closing(Guest(cpu_model="zen3")) as guest:
        guest.asm("adc rax, 1; nop")
        guest.control(mov_dr_exiting=1)
        guest.intercept(6)
        guest.regs.rflags, guest.regs.dr7, guest.regs.lstar = 3, 0x402, 0x1234
        guest.current.vmcs.native.dr[0] = 0x10004
        guest.set_xmm(3, 7)
        guest.run()
        path = tmp_path / "case.toml"
        path.write_text(case_of(guest, "again"))
    written = read_cases(path)[0]
    assert written.registers == {
        "rsp": STACK, "rip": CODE, "rflags": 3, "dr7": 0x402, "lstar": 0x1234, "dr0": 0x10004,
        "xmm3": 7,
    }  # fmt: skip
    assert (written.controls, written.intercept) == ({"mov_dr_exiting": 1}, (6,))
    assert written.options == {"cpu_model": "zen3"}
    with closing(Guest(**written.options)) as again:
        load_case(again, written)
        again.run()
        assert again.fault is not None
        assert (again.fault.vector, again.regs.rax) == (1, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ring": 1}, "ring 1 is not offered"),
        ({"mode": Mode.REAL16, "ring": 3}, "real mode has no ring 3"),
        ({"mode": Mode.PROT32, "paging": Scheme.LEVEL4}, "4level does not go with prot32"),
        ({"mode": Mode.PROT32, "pages": ("0x1000 r",)}, "pages need paging"),
    ],
)
def test_states_that_cannot_be(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Environment(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("line", ["0x20000", "0x20001 r", "0x20000 q", "0x20000+0x10 r", "x r"])
def test_page_lines_that_are_none(guest: Guest, line: str) -> None:
    with pytest.raises(UsageError, match="page line"):
        guest.reset(Environment(pages=(line,)))


def test_a_segment_dropped_on_the_way_out_keeps_its_base(guest: Guest) -> None:
    """IRET to ring 3 makes GS null that ring 0 had loaded; 64-bit code goes on by its base."""
    guest.reset(Environment(pages=("0x10000+0x10000 rwxu", "0x20000+0x10000 rwu")))
    guest.memory.write(0x20000, b"\x88\x77\x66\x55")
    outside = guest.asm("mov eax, gs:[0x1000]; mov ecx, gs", at=0x10100, end=False)
    guest.memory.write(0x10100 + len(outside), bytes([0xCD, 0xFF]))
    guest.asm("""
        mov eax, 0x10; mov gs, eax
        mov ecx, 0xc0000101; mov eax, 0x1f000; xor edx, edx; wrmsr
        push 0x2b; push 0x2f000; push 2; push 0x33; push 0x10100; iretq
    """)
    guest.run()
    assert (guest.regs.rax, guest.regs.rcx) == (0x55667788, 0)
    assert guest.fault is None
