"""Instructions are counted one by one, and a deadline lands on any of them."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.bare import CODE, FOREVER, MIB, STACK, Bare, Mode, assemble

Make = Callable[..., Bare]
unicorn: Any = pytest.importorskip("unicorn")
x86: Any = pytest.importorskip("unicorn.x86_const")

MIXED = """
    mov rbx, 0x200000
    mov r8d, 5
again:
    mov ecx, 7
    lea rdi, [rbx + 0x40]
    lea rsi, [rbx + 0x400]
    cld
    rep movsb
    call work
    push rax
    popfq
    xor edx, edx
    mov rax, r8
    mul rax
    add [rbx], rax
    cvtsi2sd xmm0, rax
    addsd xmm1, xmm0
    movq [rbx + 8], xmm1
    xchg rax, [rbx + 16]
    add rbx, 0x1ff0
    xor ecx, ecx
    rep stosq
    dec r8d
    jnz again
    jmp end
work:
    mov eax, 0x2
    test r8d, 1
    jz even
    or eax, 0x41
even:
    setz al
    and eax, 0x41
    or eax, 0x2
    ret
end:
    nop
    hlt
"""


@pytest.mark.parametrize(
    ("text", "retired"),
    [
        ("hlt", 0),
        ("nop; nop; nop; hlt", 3),
        ("mov ecx, 10; again: dec ecx; jnz again; hlt", 21),
        ("mov edi, 0x200000; mov ecx, 100; rep stosb; hlt", 3),
        ("mov edi, 0x200000; xor ecx, ecx; rep stosb; hlt", 3),
        ("mov edi, 0x200000; mov esi, 0x300000; mov ecx, 9000; rep movsb; hlt", 4),
        ("mov edi, 0x200000; mov ecx, 5; mov al, 1; repne scasb; nop; hlt", 5),
        ("call next; hlt; next: ret", 2),
        ("lea rax, [rip + next]; push rax; ret; nop; next: hlt", 3),
        ("pushfq; popfq; hlt", 2),  # looked at when they are translated
        ("cli; sti; mov rax, cr0; mov cr0, rax; mov rax, cr3; mov cr3, rax; clts; hlt", 7),
        ("sgdt [0x200000]; lgdt [0x200000]; swapgs; swapgs; hlt", 4),
        ("mov ax, ds; mov ss, ax; nop; invlpg [0x200000]; hlt", 4),
    ],
)
def test_every_instruction_is_counted_once(bare: Make, text: str, retired: int) -> None:
    machine = bare()
    vmexit = machine.run(text)
    assert vmexit.name == "HLT"
    assert vmexit.instructions == retired == machine.pcpu.instructions
    assert vmexit.cycle == retired == machine.clock.now


@pytest.mark.parametrize(
    ("before", "retired"), [("nop; nop;", 2), ("mov ebx, 3; l: dec ebx; jnz l; nop;", 8), ("", 0)]
)
@pytest.mark.parametrize("fault", ["mov rax, [0x500000]", "ud2", "div ecx", "mov [0x600000], al"])
def test_a_fault_in_the_middle_of_a_block(
    bare: Make, before: str, retired: int, fault: str
) -> None:
    machine = bare()
    machine.intercept(0, 6, 14)
    vmexit = machine.run(f"{before} fault: {fault}; nop; nop; hlt")
    assert vmexit.name == "EXCEPTION_NMI"
    assert vmexit.instructions == retired
    assert vmexit.rip == CODE + len(assemble(before or " "))


def test_a_fault_inside_rep_does_not_count_it(bare: Make) -> None:
    machine = bare()
    machine.intercept(14)
    vmexit = machine.run("mov edi, 0x3ffff0; mov ecx, 100; rep stosb; hlt")
    assert (vmexit.name, vmexit.instructions) == ("EXCEPTION_NMI", 2)
    assert machine.regs.rcx == 100 - 16
    assert vmexit.qualification == machine.regs.rdi == 4 * MIB


def test_an_instruction_across_two_pages(bare: Make) -> None:
    machine = bare()
    at = 0x200FFC
    code = assemble("nop; nop; movabs rax, 0x1122334455667788; nop; hlt", at)
    machine.ram.view[at : at + len(code)] = code
    machine.regs.rip = at
    vmexit = machine.enter()
    assert (vmexit.name, vmexit.instructions) == ("HLT", 4)
    assert machine.regs.rax == 0x1122334455667788


def test_a_delivered_exception_takes_a_cycle_but_is_no_instruction(bare: Make) -> None:
    machine = bare()
    machine.gate(6, CODE + 0x100)
    machine.load("hlt", CODE + 0x100)
    vmexit = machine.run("nop; ud2")
    assert (vmexit.name, vmexit.rip) == ("HLT", CODE + 0x100)
    assert vmexit.instructions == 1
    assert vmexit.cycle == 2


def reference_trace(text: str) -> list[int]:
    """RIP before each instruction as bare Unicorn sees them, one for a repeated instruction."""
    code, trace = assemble(text), list[int]()
    machine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    machine.mem_map(0, 4 * MIB)
    machine.mem_write(CODE, code)
    machine.reg_write(x86.UC_X86_REG_RSP, STACK)

    def note(_uc: Any, address: int, _size: int, _data: Any) -> None:
        if not trace or trace[-1] != address:
            trace.append(address)

    machine.hook_add(unicorn.UC_HOOK_CODE, note)
    machine.emu_start(CODE, CODE + len(code) - 1)
    assert machine.reg_read(x86.UC_X86_REG_RIP) == CODE + len(code) - 1
    return [*trace, CODE + len(code) - 1]


def test_the_deadline_lands_on_every_instruction(bare: Make) -> None:
    trace = reference_trace(MIXED)
    assert len(trace) > 120
    for count, rip in enumerate(trace):
        machine = bare()
        machine.load(MIXED)
        vmexit = machine.enter(count)
        assert (vmexit.name, vmexit.instructions) == ("DEADLINE", count)
        assert vmexit.rip == rip == machine.regs.rip
        machine.close()


def finish(machine: Bare, slices: Iterator[int]) -> tuple[Any, ...]:
    vmexit = machine.enter(machine.clock.now + next(slices))
    while vmexit.name == "DEADLINE":
        vmexit = machine.enter(machine.clock.now + next(slices))
    assert vmexit.name == "HLT"
    return machine.state()


def always(size: int) -> Iterator[int]:
    while True:
        yield size


@pytest.mark.parametrize("size", [1, 2, 7, 50])
def test_a_run_in_slices_is_the_same(bare: Make, size: int) -> None:
    whole, sliced = bare(), bare()
    whole.load(MIXED)
    sliced.load(MIXED)
    assert finish(sliced, always(size)) == finish(whole, always(FOREVER))


STRIDES = """
    mov r9d, 200
outer:
    mov rbx, 0x200000
    mov ecx, 500
inner:
    add [rbx], rcx
    adc rax, [rbx + 8]
    add rbx, 0x1000
    dec ecx
    jnz inner
    mov rdx, cr3
    mov cr3, rdx
    dec r9d
    jnz outer
    hlt
"""


def test_host_time_does_not_enter(bare: Make) -> None:
    """Unicorn resizes its own TLB by the host's clock; nothing of that may show."""
    whole, slept = bare(pages_4k=True), bare(pages_4k=True)
    whole.load(STRIDES)
    slept.load(STRIDES)

    def naps() -> Iterator[int]:
        for nap in (0.12, 0.0, 0.15, 0.01):
            yield 60_000
            time.sleep(nap)
        yield from always(FOREVER)

    assert finish(slept, naps()) == finish(whole, always(FOREVER))


def test_two_engines_do_not_meet(bare: Make) -> None:
    alone, first, second = bare(), bare(), bare(Mode.PROTECTED)
    text = "mov edi, 0x200000; mov ecx, 50; again: mov [rdi], ecx; add edi, 8; loop again; hlt"
    text32 = text.replace("rdi", "edi")
    alone.load(text)
    first.load(text)
    second.load(text32.replace("ecx, 50", "ecx, 30"))
    expected = finish(alone, always(FOREVER))
    ended = 0
    while not ended:  # turn and turn about
        vmexit = second.enter(second.clock.now + 3)
        ended = vmexit.name == "HLT"
        first.enter(first.clock.now + 5)
    assert second.pcpu.instructions == 2 + 3 * 30
    assert second.peek(0x200000 + 8 * 30) == 0
    assert finish(first, always(5)) == expected


LOOP = "mov ecx, 1000; again: add rax, rcx; test al, 1; jz skip; inc rbx; skip: dec ecx; jnz again;"


def test_a_hook_written_into_its_block_counts_the_same(bare: Make) -> None:
    """A block counts itself without a call after its first run; stops on any of its instructions
    find the number that single steps find."""
    one = bare()
    one.load(LOOP + "hlt")
    one.enter()
    assert one.pcpu.counters()["inlined"] > 0
    other = bare()
    other.load(LOOP + "hlt")
    while other.pcpu.instructions < one.pcpu.instructions:
        other.enter(min(other.clock.now + 37, one.clock.now))
    assert (other.regs.rax, other.regs.rbx) == (one.regs.rax, one.regs.rbx)


def test_a_loop_that_loads_cr3_needs_no_hook_and_no_step(bare: Make) -> None:
    """MOV to CR3 ends its block: what comes behind it is not looked at as if it were in it."""
    machine = bare()
    machine.load("mov rbx, cr3; mov ecx, 100; again: mov cr3, rbx; nop; dec ecx; jnz again; hlt")
    machine.enter()
    counters = machine.pcpu.counters()
    assert machine.regs.rcx == 0
    assert (counters["hooked"], counters["steps"]) == (0, 0)


def test_translations_are_dropped_before_their_buffer_is_full(bare: Make) -> None:
    """565,800 instructions in a row fill it; each fiftieth block stores into itself, counted once.

    MOV's immediate, 0x90, goes over the opcode behind it: NOP; ADD EAX, [RCX] stand there then.
    """
    machine = bare()
    plain = b"\x80\x03\x01" * 123  # add byte [rbx], 1
    own = b"\xb0\x90\x88\x05\x00\x00\x00\x00" + b"\x80\x03\x01" * 120
    machine.poke(2 * MIB, (plain * 49 + own) * 92 + b"\xc3")
    machine.load("mov ebx, 0x9800; mov ebp, 0x200000; call rbp; hlt")
    machine.enter()
    assert machine.pcpu.instructions == 4 + 123 * 50 * 92
    assert machine.pcpu.counters()["drops"] == 1


def overwrites_itself(bare: Make) -> Bare:
    """A REP MOVSB whose first iteration makes a NOP of its first prefix: a random program did."""
    machine = bare()
    machine.poke(CODE + 0x800, b"\x90\xf3\xa4" + b"\x90" * 5)
    machine.load("nop; nop")
    machine.poke(CODE + 2, b"\x67\xf3\xa4" + b"\x90" * 8 + b"\xf4")
    machine.regs.rsi, machine.regs.rdi, machine.regs.rcx = CODE + 0x800, CODE + 2, 8
    return machine


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7])
def test_a_rep_that_overwrites_itself_stops_where_single_steps_stop(bare: Make, size: int) -> None:
    def trail(size: int) -> dict[int, tuple[int, int]]:
        machine, seen = overwrites_itself(bare), {}
        while machine.regs.rip < CODE + 0xD:
            before = machine.pcpu.instructions
            machine.enter(machine.clock.now + size)
            assert machine.pcpu.instructions > before
            seen[machine.pcpu.instructions] = (machine.regs.rip, machine.regs.rcx)
        return seen

    single, several = trail(1), trail(size)
    assert several == {count: single[count] for count in several}
