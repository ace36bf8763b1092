"""Modes, single steps, shadows: what a guest may know of where it is."""

from collections.abc import Callable

import pytest

from hwmodel.arch.vmcs import Field
from tests.bare import CODE, CS32, CS64, DATA, IDT, TSS, USER_CS, USER_DATA, Bare, Mode, assemble

Make = Callable[..., Bare]
SINGLE_STEP = 1 << 14
unchecked_limits = pytest.mark.xfail(
    strict=True, reason="translated code checks no segment limits (docs/SUPPORT.md)"
)


def test_real_mode_interrupt_and_iret(bare: Make) -> None:
    machine = bare(Mode.REAL)
    machine.vmcs[Field.GUEST_IDTR_LIMIT] = 0x3FF
    machine.word(4 * 0x21, (CODE + 0x80 & 0xF) | (CODE + 0x80 >> 4) << 16)
    machine.load("mov dx, 0x77; iret", CODE + 0x80)
    vmexit = machine.run("mov ax, 0x1234; push ax; int 0x21; pop bx; hlt")
    assert (vmexit.name, vmexit.instructions) == ("HLT", 6)
    assert machine.regs.rbx & 0xFFFF == 0x1234
    assert machine.regs.rdx & 0xFFFF == 0x77
    assert machine.regs.rsp == 0x9000
    assert machine.peek(0x9000 - 2, 2) == 0x1234
    assert machine.peek(0x9000 - 6, 2) == CODE >> 4  # CS between FLAGS and IP


def test_real_mode_addresses_are_segment_times_16(bare: Make) -> None:
    machine = bare(Mode.REAL)
    vmexit = machine.run("mov ax, 0x2345; mov ds, ax; mov word ptr [0x10], 0x55aa; hlt")
    assert vmexit.name == "HLT"
    assert machine.peek(0x2345 * 16 + 0x10, 2) == 0x55AA
    assert machine.vmcs[Field.GUEST_DS_BASE] == 0x23450


@unchecked_limits
def test_real_mode_limit(bare: Make) -> None:
    machine = bare(Mode.REAL)
    machine.intercept(12, 13)
    assert machine.run("mov bx, 0xffff; mov ax, [bx]; hlt").interruption_info & 0xFF == 13
    assert machine.run("mov bp, 0xffff; mov ax, [bp]; hlt", rip=0).interruption_info & 0xFF == 12


def test_from_real_to_protected_mode_as_a_boot_path_goes(bare: Make) -> None:
    machine = bare(Mode.REAL)
    machine.load("""
        xor ax, ax
        mov ds, ax
        mov word ptr [0x500], 0x2f
        mov word ptr [0x502], 0x5000
        mov word ptr [0x504], 0
        lgdt [0x500]
        mov eax, cr0
        or al, 1
        mov cr0, eax
    """)
    first = machine.enter(9)
    assert first.name == "DEADLINE"
    at = CODE + machine.regs.rip
    jump = b"\x66\xea" + (CODE + 0x200).to_bytes(4, "little") + CS32.to_bytes(2, "little")
    machine.poke(at, jump)
    protected = assemble(
        "mov ax, 0x18; mov ds, ax; mov ss, ax; mov eax, 0x620; mov cr4, eax; mov eax, 0x1000;"
        "mov cr3, eax; mov ecx, 0xc0000080; mov eax, 0x100; xor edx, edx; wrmsr; hlt",
        CODE + 0x200, 32,
    )  # fmt: skip
    machine.poke(CODE + 0x200, protected)
    vmexit = machine.enter()
    assert vmexit.name == "MSR_WRITE"  # no bitmap: software does it
    assert (machine.regs.rcx, machine.regs.rax) == (0xC000_0080, 0x100)
    assert machine.vmcs[Field.GUEST_CS_SELECTOR] == CS32
    assert machine.vmcs[Field.GUEST_DS_LIMIT] == 0xFFFF_FFFF
    assert machine.regs.cr4 == 0x2620


def with_a_segment(machine: Bare) -> None:
    """0x20: data, base 0x200000, limit 0xfff bytes."""
    machine.intercept(13)
    machine.word(0x5020, 0xFFF | 0x20 << 32 | 0x93 << 40 | 0x40 << 48)


def test_protected_mode_segment_base(bare: Make) -> None:
    machine = bare(Mode.PROTECTED)
    with_a_segment(machine)
    vmexit = machine.run("mov eax, 0x20; mov es, ax; mov byte ptr es:[0xfff], 7; lsl ebx, eax; hlt")
    assert vmexit.name == "HLT"
    assert machine.peek(0x20_0FFF, 1) == 7
    assert machine.regs.rbx == 0xFFF


@unchecked_limits
def test_protected_mode_segment_limit(bare: Make) -> None:
    machine = bare(Mode.PROTECTED)
    with_a_segment(machine)
    vmexit = machine.run("mov eax, 0x20; mov es, ax; mov es:[0x1000], al; hlt")
    assert vmexit.name == "EXCEPTION_NMI"
    assert (vmexit.interruption_info & 0xFF, vmexit.interruption_error) == (13, 0)


def test_compatibility_mode_and_back(bare: Make) -> None:
    machine = bare()
    machine.ram.view[0x18000:0x18010] = assemble(
        "mov eax, 0xffffffff; inc eax; retf", 0x18000, 32
    ).ljust(16, b"\x90")
    text = f"""
        mov eax, {DATA}
        mov ss, ax
        lea rax, [rip + back]
        push {CS64}
        push rax
        mov dword ptr [rsp + 4], {CS64}
        push {CS32}
        mov eax, 0x18000
        push rax
        retfq
    back:
        hlt
    """
    machine.load(text.replace("retfq", ".byte 0x48, 0xcb"))
    vmexit = machine.enter()
    assert vmexit.name == "HLT"
    assert machine.vmcs[Field.GUEST_CS_SELECTOR] == CS64
    assert machine.regs.rax == 0  # 32-bit arithmetic: not 1 << 32
    assert vmexit.instructions == 10 + 3


def test_ring_3_and_back_by_interrupt(bare: Make) -> None:
    machine = bare()
    machine.gate(0x30, CODE + 0x200, dpl=3)
    machine.load("mov rdx, cs; hlt", CODE + 0x200)
    machine.load("mov rcx, cs; mov ebx, 5; int 0x30", CODE + 0x100)
    machine.word(0x3000, 0x87)
    vmexit = machine.run(f"""
        push {USER_DATA}
        push 0x8800
        push 0x202
        push {USER_CS}
        push {CODE + 0x100}
        iretq
    """)
    assert vmexit.name == "HLT"
    assert (machine.regs.rcx, machine.regs.rdx, machine.regs.rbx) == (USER_CS, CS64, 5)
    assert machine.peek(TSS + 4) == 0x8000
    assert machine.regs.rsp == 0x8000 - 40  # RSP0, five words pushed
    assert machine.peek(0x8000 - 16) == 0x8800
    assert machine.peek(0x8000 - 32) == USER_CS


@pytest.mark.parametrize("text", ["hlt", "cli", "mov rax, cr0", "lgdt [0x8000]", "wrmsr", "invd"])
def test_ring_3_may_not(bare: Make, text: str) -> None:
    machine = bare()
    machine.intercept(13)
    machine.load(f"nop; {text}", CODE + 0x100)
    vmexit = machine.run(f"""
        push {USER_DATA}
        push 0x8800
        push 2
        push {USER_CS}
        push {CODE + 0x100}
        iretq
    """)
    assert vmexit.name == "EXCEPTION_NMI"
    assert (vmexit.interruption_info & 0xFF, vmexit.interruption_error) == (13, 0)
    assert vmexit.rip == CODE + 0x101


def test_flags_show_ring_0_its_own_iopl(bare: Make) -> None:
    machine = bare()
    machine.run("pushfq; pop rax; push 0x3202; popfq; pushfq; pop rbx; mov rcx, cs; hlt")
    assert machine.regs.rax == 2
    assert machine.regs.rbx == 0x3202
    assert machine.regs.rflags & 0x3000 == 0x3000
    assert machine.regs.rcx == CS64


def step_to(machine: Bare, text: str) -> tuple[int, int]:
    machine.intercept(1)
    vmexit = machine.run(text)
    assert vmexit.name == "EXCEPTION_NMI"
    assert vmexit.interruption_info & 0x7FF == 3 << 8 | 1
    return vmexit.rip - CODE, vmexit.qualification


def test_single_step_traps_behind_the_next_instruction(bare: Make) -> None:
    text = "push 0x102; popfq; nop; nop; hlt"
    assert step_to(bare(), text) == (len(assemble("push 0x102; popfq; nop")), SINGLE_STEP)


def test_single_step_over_an_instruction_that_the_processor_model_does(bare: Make) -> None:
    text = "push 0x102; popfq; mov rax, cr0; nop; hlt"
    assert step_to(bare(), text) == (len(assemble("push 0x102; popfq; mov rax, cr0")), SINGLE_STEP)


def test_mov_ss_holds_the_single_step_back(bare: Make) -> None:
    text = "mov ax, ss; push 0x102; popfq; mov ss, ax; nop; nop; hlt"
    end = len(assemble("mov ax, ss; push 0x102; popfq; mov ss, ax; nop"))
    assert step_to(bare(), text) == (end, SINGLE_STEP)


def test_a_repeated_instruction_single_steps_by_iterations(bare: Make) -> None:
    machine = bare()
    text = "mov edi, 0x200000; mov ecx, 3; push 0x102; popfq; rep stosb; hlt"
    before = len(assemble("mov edi, 0x200000; mov ecx, 3; push 0x102; popfq"))
    assert step_to(machine, text) == (before, SINGLE_STEP)
    assert machine.regs.rcx == 2


def test_single_step_through_the_idt(bare: Make) -> None:
    machine = bare()
    machine.gate(1, CODE + 0x100)
    machine.load("pop rax; pushfq; pop rbx; hlt", CODE + 0x100)
    machine.run("push 0x102; popfq; nop; nop")
    assert machine.regs.rax == CODE + len(assemble("push 0x102; popfq; nop"))
    assert not machine.regs.rbx & 0x100  # the gate cleared TF
    assert machine.regs.dr6 & SINGLE_STEP


def test_sti_shadow_is_in_the_exit(bare: Make) -> None:
    machine = bare()
    machine.run("cli; sti; hlt")
    assert machine.vmcs[Field.GUEST_INTERRUPTIBILITY_INFO] & 3 == 1
    machine = bare()
    machine.run("mov ax, ss; mov ss, ax; cpuid")
    assert machine.vmcs[Field.GUEST_INTERRUPTIBILITY_INFO] & 3 == 2
    machine = bare()
    machine.run("sti; sti; cpuid")  # the second has no shadow: IF was set
    assert machine.vmcs[Field.GUEST_INTERRUPTIBILITY_INFO] & 3 == 0


def test_nmi_blocking_until_iret(bare: Make) -> None:
    machine = bare()
    machine.gate(2, CODE + 0x100)
    machine.load("cpuid; iretq", CODE + 0x100)
    machine.load("nop; hlt")
    machine.vmcs[Field.VM_ENTRY_INTR_INFO_FIELD] = 1 << 31 | 2 << 8 | 2
    vmexit = machine.enter()
    assert vmexit.name == "CPUID"
    assert machine.vmcs[Field.GUEST_INTERRUPTIBILITY_INFO] & 8
    machine.skip(vmexit)
    assert machine.enter().name == "HLT"
    assert not machine.vmcs[Field.GUEST_INTERRUPTIBILITY_INFO] & 8


def test_lidt_moves_the_idt(bare: Make) -> None:
    machine = bare()
    machine.gate(6, CODE + 0x100)
    for n in range(2):
        machine.word(0x30_0000 + 6 * 16 + 8 * n, machine.peek(IDT + 6 * 16 + 8 * n))
        machine.word(IDT + 6 * 16 + 8 * n, 0)
    machine.word(0x20_0000, 0xFFF | 0x30_0000 << 16)
    machine.load("hlt", CODE + 0x100)
    vmexit = machine.run("lidt [0x200000]; ud2")
    assert (vmexit.name, vmexit.rip) == ("HLT", CODE + 0x100)
    assert machine.vmcs[Field.GUEST_IDTR_BASE] == 0x30_0000
