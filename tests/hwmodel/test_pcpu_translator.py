"""What hostile programs found in TCG, each in the smallest program that shows it."""

from collections.abc import Callable

import pytest

from hwmodel.arch.exits import ExitReason
from tests.bare import CODE, FOREVER, MIB, PD, PDPT, PML4, Bare, Mode, assemble

Make = Callable[..., Bare]
UNMAPPED = 0x1000_0000
HANDLER = 0x11000
CARRY, ALL_FLAGS = 1, 0x8D5


def faults(machine: Bare, code: bytes, vector: int) -> int:
    """Run code that raises `vector`; return the flags in the frame of its handler."""
    machine.gate(vector, HANDLER)
    machine.poke(HANDLER, b"\xf4")
    machine.poke(CODE, code)
    vmexit = machine.enter()
    assert (vmexit.reason, vmexit.rip) == (ExitReason.HLT, HANDLER)
    return machine.peek(machine.regs.rsp + (24 if vector == 14 else 16))


@pytest.mark.parametrize(
    ("count", "loop", "jumps"),
    [(1, "loopne", False), (2, "loopne", True), (2, "loope", False), (1, "loope", False)],
)
def test_loops_on_a_flag_keep_the_others(bare: Make, count: int, loop: str, jumps: bool) -> None:
    machine = bare()
    machine.load(
        f"mov ecx, {count}; mov al, 0xf4; add al, 0xd5; {loop} taken; sbb ebx, ebx; hlt;"
        "taken: sbb edx, edx; hlt"
    )
    machine.enter()
    assert machine.regs.rcx == count - 1
    assert (machine.regs.rdx if jumps else machine.regs.rbx) == 0xFFFF_FFFF


def test_a_loop_on_a_flag_counts_in_its_address_size(bare: Make) -> None:
    machine = bare(Mode.PROTECTED)
    machine.poke(CODE, bytes.fromhex("39c0 67e0fe f4"))  # cmp eax, eax; loopne with CX
    machine.regs.rcx = 0x1_0000
    machine.enter()
    assert machine.regs.rcx == 0x1_FFFF


@pytest.mark.parametrize("code", ["c5f831", "c5961131", "c4e17831", "c5f858c1"])
def test_a_vex_prefix_is_invalid_without_avx(bare: Make, code: str) -> None:
    """Also before instructions that never have one: TCG ran VEX RDTSC, with the host's clock."""
    machine = bare()
    machine.regs.rcx = machine.regs.rbx = 0x200000
    faults(machine, b"\x90" + bytes.fromhex(code) + b"\xf4", 6)
    assert machine.pcpu.instructions == 1


@pytest.mark.parametrize("mode", [Mode.LONG, Mode.PROTECTED])
@pytest.mark.parametrize(
    ("text", "wanted"),
    [("andn eax, ebx, ecx", 0xF0), ("rorx eax, ebx, 4", 0xF0000000), ("bzhi eax, ebx, edx", 3)],
)
def test_bmi_has_its_vex_prefix(bare: Make, mode: Mode, text: str, wanted: int) -> None:
    """CPUID offers BMI. In 64-bit mode C4 is not LES either."""
    machine = bare(mode)
    machine.run(f"{text}; hlt", rbx=0x0F, rcx=0xFF, rdx=2)
    assert machine.regs.rax == wanted


def test_adx_is_there(bare: Make) -> None:
    """CPUID offers it; Unicorn's default model is without."""
    machine = bare()
    machine.run("stc; adcx rax, rbx; adox rcx, rbx; hlt", rbx=0x0F, rcx=0xFF)
    assert (machine.regs.rax, machine.regs.rcx) == (0x10, 0x10E)


def test_a_block_of_instructions_that_use_up_temporaries(bare: Make) -> None:
    """512 FCMOV in a block wrote over the end of TCG's table; now blocks are shorter."""
    machine = bare()
    machine.poke(CODE, b"\xda\xc1" * 1500 + b"\xf4")
    assert machine.enter().reason == ExitReason.HLT
    assert machine.pcpu.instructions == 1500


@pytest.mark.parametrize("until", [FOREVER, 2])
def test_flags_at_a_fault_of_what_only_capstone_knows(bare: Make, until: int) -> None:
    """F6 /1 ends TCG's block after the address; its bytes look cut off, it gets a hook and runs."""
    machine = bare()
    code = assemble("mov al, 0xf4; add al, 0xd5") + bytes.fromhex("f68b00000010 ae f4")
    machine.poke(CODE, code)
    machine.enter(until)
    if until == FOREVER:
        return
    assert faults(machine, code, 14) & ALL_FLAGS & CARRY


@pytest.mark.parametrize("stop", [None, 1, 2])
@pytest.mark.parametrize("how", ["jmp rax", "call rax", "push rax; ret"])
def test_a_wild_jump_faults_where_it_stands(bare: Make, how: str, stop: int | None) -> None:
    """However the instructions before it were cut: single steps ended behind the jump."""
    machine = bare()
    machine.gate(13, HANDLER)
    machine.poke(HANDLER, b"\xf4")
    machine.load(how)
    machine.regs.rax = 0x8000_0000_0000_0000
    if stop is not None:
        machine.enter(stop)
    machine.enter()
    jump = CODE + (1 if "push" in how else 0)
    assert machine.peek(machine.regs.rsp + 8) == jump
    assert machine.peek(machine.regs.rsp + 32) == 0x9000 - 8 * (jump - CODE)


def test_a_jump_takes_32_bits_outside_64_bit_mode(bare: Make) -> None:
    machine = bare(Mode.PROTECTED)
    machine.load("jmp eax")
    machine.load("hlt", HANDLER)
    machine.regs.rax = 0x8000_0000_0000 | HANDLER
    vmexit = machine.enter()
    assert (vmexit.reason, vmexit.rip) == (ExitReason.HLT, HANDLER)


@pytest.mark.parametrize("steps", [1, FOREVER])
def test_a_far_call_that_writes_its_own_block_counts_once(bare: Make, steps: int) -> None:
    machine = bare(Mode.REAL)
    machine._segment("SS", CODE >> 4, CODE, 0xFFFF, 0x93)
    machine.poke(CODE, bytes.fromhex("90 90 90 90 9a 2000 0010") + bytes(0x17) + b"\xf4")
    machine.regs.rsp = 4  # the frame replaces the NOPs
    while machine.enter(machine.clock.now + steps).reason != ExitReason.HLT:
        assert machine.pcpu.instructions < 10
    assert (machine.pcpu.instructions, machine.regs.rip) == (5, 0x20)


def test_blocks_that_are_never_run_to_their_end_are_given_up(bare: Make) -> None:
    """Each instruction stores into its own block: in single steps, not a block of 128 for each."""
    machine = bare()
    machine.poke(CODE, assemble("add byte ptr [rip + 14], 0") * 1000 + bytes(32) + b"\xf4")
    assert machine.enter().reason == ExitReason.HLT
    assert machine.pcpu.instructions == 1016
    assert machine.pcpu.counters()["steps"] > 800


@pytest.mark.parametrize("until", [1, 2, 3, FOREVER])
@pytest.mark.parametrize("text", ["bt ecx, 0", "bts ecx, 0", "bt dword ptr [rbx], ecx"])
def test_bit_tests_leave_other_flags_alone_however_cut(bare: Make, text: str, until: int) -> None:
    machine = bare()
    machine.load(f"mov al, 0xff; add al, 1; {text}; hlt")
    machine.regs.rbx = 0x200000
    machine.enter(until)
    machine.enter()
    assert machine.regs.rflags & ALL_FLAGS == 0x54  # zero, parity, adjust; carry is the bit


@pytest.mark.parametrize("before", range(124, 131))
def test_a_store_into_its_block_counts_once_wherever_the_block_is_cut(
    bare: Make, before: int
) -> None:
    machine = bare()
    code = b"\x90" * before + assemble("add byte ptr [rip - 12], 1") + b"\x90" * 9 + b"\xf4"
    machine.poke(CODE, code)
    assert machine.enter().reason == ExitReason.HLT
    assert machine.pcpu.instructions == before + 10
    assert machine.peek(CODE + before - 5, 1) == 0x91


@pytest.mark.parametrize("until", [1, FOREVER])
@pytest.mark.parametrize("distance", [1, 2, 3])
@pytest.mark.parametrize("code", [CODE, CODE + 0x100])
def test_an_unaligned_change_that_reaches_its_block_happens_once(
    bare: Make, code: int, distance: int, until: int
) -> None:
    """TCG stores it byte by byte, and began anew when a byte hit the block, a part being done."""
    machine = bare()
    machine.poke(code - 8, b"\x10" * 8)
    machine.load("add dword ptr [rbx], eax; nop; nop; hlt", code)
    machine.regs.rip, machine.regs.rbx = code, code - distance
    machine.regs.rax = 0x0101_0101 & (1 << 8 * distance) - 1
    before = machine.peek(code)
    while machine.enter(machine.clock.now + until).reason != ExitReason.HLT:
        assert machine.pcpu.instructions < 9
    assert machine.peek(code - distance, distance) == int.from_bytes(b"\x11" * distance)
    assert machine.peek(code) == before


def test_a_long_repetition_in_single_steps_is_progress(bare: Make) -> None:
    """It counts as one instruction, however often it is left for nothing else."""
    machine = bare()
    machine.load("rep lodsb; nop; hlt")
    machine.regs.rcx, machine.regs.rsi, machine.regs.rflags = 300_000, 0x200000, 2
    assert machine.enter(machine.clock.now + 1).reason != ExitReason.HLT
    assert (machine.regs.rcx, machine.pcpu.instructions) == (0, 1)


def test_an_unaligned_store_into_code_on_the_last_page_has_no_second_page(bare: Make) -> None:
    """Four billion bytes were looked at: the address behind the last page is zero."""
    machine = bare()
    machine.word(PML4 + 511 * 8, PDPT | 7)
    machine.word(PDPT + 511 * 8, PD | 7)
    machine.word(PD + 511 * 8, 0x87)
    machine.poke(0x1FF000, bytes.fromhex("66c70500010000 3412 f4"))  # mov word [rip+0x100], 0x1234
    machine.load("mov rax, 0xfffffffffffff000; jmp rax", at=0x800)  # the first page holds code too
    machine.regs.rip = 0x800
    assert machine.enter().reason == ExitReason.HLT
    assert machine.peek(0x1FF109, 2) == 0x1234


@pytest.mark.parametrize("times", [3, 10, 40])
def test_code_that_is_changed_between_its_runs(bare: Make, times: int) -> None:
    """Stores by the mapping that it runs in, until the page is data and code again (40)."""
    machine = bare()
    machine.poke(2 * MIB, b"\xb0\x00\xc3")  # mov al, 0; ret
    machine.load(
        "mov edi, 0x200000; xor eax, eax; xor ebx, ebx;"
        f"mov ecx, {times}; again: call rdi; add ebx, eax; inc byte ptr [rdi + 1];"
        "dec ecx; jnz again; hlt"
    )
    machine.enter()
    assert machine.regs.rbx == sum(range(times))


def test_code_that_is_changed_by_another_mapping(bare: Make) -> None:
    """Page 0x201000 shows the same memory, and cannot be executed."""
    machine = bare(pages_4k=True)
    machine.word(0x20000 + 8, 2 * MIB | 7 | 1 << 63)
    machine.regs.efer |= 1 << 11  # NXE
    machine.poke(2 * MIB, b"\xb0\x00\xc3")
    machine.load(
        "mov edi, 0x200000; mov esi, 0x201000; xor eax, eax; xor ebx, ebx; mov ecx, 30;"
        "again: call rdi; add ebx, eax; inc byte ptr [rsi + 1]; mov dl, [rsi + 1]; dec ecx;"
        "jnz again; hlt"
    )
    machine.enter()
    assert (machine.regs.rbx, machine.regs.rcx) == (sum(range(30)), 0)
