"""The fields of an exit, reason by reason, as Intel SDM, *Basic VM-Exit Information* has them."""

from collections.abc import Callable

import pytest

from hwmodel.arch.vmcs import Field
from tests.bare import CODE, CS64, GDT, IDT, MIB, Bare, Mode, assemble

Make = Callable[..., Bare]
NOWHERE = 8 * MIB  # mapped by nobody's slot when paging is off
VALID, HARDWARE, SOFTWARE, HAS_ERROR = 1 << 31, 3 << 8, 6 << 8, 1 << 11

ALL = {
    "hlt_exiting": 1, "invlpg_exiting": 1, "rdtsc_exiting": 1, "cr3_load_exiting": 1,
    "cr3_store_exiting": 1, "cr8_load_exiting": 1, "cr8_store_exiting": 1, "mov_dr_exiting": 1,
    "rdpmc_exiting": 1,
}  # fmt: skip
ALL2 = {"wbinvd_exiting": 1, "rdrand_exiting": 1, "rdseed_exiting": 1}


@pytest.mark.parametrize(
    ("text", "name", "qualification", "length"),
    [
        ("cpuid", "CPUID", 0, 2),
        ("hlt", "HLT", 0, 1),
        ("rdtsc", "RDTSC", 0, 2),
        ("rdtscp", "RDTSCP", 0, 3),
        ("rdpmc", "RDPMC", 0, 2),
        ("wbinvd", "WBINVD", 0, 2),
        ("invd", "INVD", 0, 2),
        ("rdmsr", "MSR_READ", 0, 2),
        ("wrmsr", "MSR_WRITE", 0, 2),
        ("vmcall", "VMCALL", 0, 3),
        ("rdrand rax", "RDRAND", 0, 4),
        ("rdseed eax", "RDSEED", 0, 3),
        ("invlpg [rbx]", "INVLPG", 0x20_3040, 3),
        # size - 1; IN is bit 3, string 4, REP 5, immediate 6, port 31:16
        ("in al, dx", "IO_INSTRUCTION", 0x1234 << 16 | 8, 1),
        ("in ax, dx", "IO_INSTRUCTION", 0x1234 << 16 | 9, 2),
        ("in eax, dx", "IO_INSTRUCTION", 0x1234 << 16 | 11, 1),
        ("out dx, eax", "IO_INSTRUCTION", 0x1234 << 16 | 3, 1),
        ("in al, 0x71", "IO_INSTRUCTION", 0x71 << 16 | 0x48, 2),
        ("out 0xe9, al", "IO_INSTRUCTION", 0xE9 << 16 | 0x40, 2),
        ("rep outsb", "IO_INSTRUCTION", 0x1234 << 16 | 0x30, 2),
        ("insd", "IO_INSTRUCTION", 0x1234 << 16 | 0x1B, 1),
        # CR number 3:0, access 5:4 (to, from, CLTS, LMSW), register 11:8
        ("mov cr3, rbx", "CR_ACCESS", 0x303, 3),
        ("mov r9, cr3", "CR_ACCESS", 0x913, 4),
        ("mov cr8, rdx", "CR_ACCESS", 0x208, 4),
        ("mov rsi, cr8", "CR_ACCESS", 0x618, 4),
        ("mov cr0, rdi", "CR_ACCESS", 0x700, 3),
        ("mov cr4, rcx", "CR_ACCESS", 0x104, 3),
        # DR number 2:0, direction 4 (1 = from), register 11:8
        ("mov dr7, rbx", "DR_ACCESS", 0x307, 3),
        ("mov rcx, dr6", "DR_ACCESS", 0x116, 3),
        ("mov dr0, r10", "DR_ACCESS", 0xA00, 4),
    ],
)
def test_qualification_and_length(
    bare: Make, text: str, name: str, qualification: int, length: int
) -> None:
    machine = bare()
    machine.control(**ALL)
    machine.control2(**ALL2)
    machine.vmcs[Field.CR0_GUEST_HOST_MASK] = machine.vmcs[Field.CR4_GUEST_HOST_MASK] = ~0
    vmexit = machine.run(f"nop; {text}; nop", rbx=0x20_3040, rdx=0x1234, rdi=0x31, rcx=0x20)
    assert vmexit.name == name
    assert vmexit.qualification == qualification
    assert vmexit.instruction_length == length == len(assemble(text))
    assert (vmexit.rip, vmexit.instructions, vmexit.sequence) == (CODE + 1, 1, 1)
    assert machine.vmcs[Field.EXIT_QUALIFICATION] == qualification
    assert machine.vmcs[Field.VM_EXIT_INSTRUCTION_LEN] == length


def test_clts_and_lmsw(bare: Make) -> None:
    machine = bare()
    machine.vmcs[Field.CR0_GUEST_HOST_MASK] = 0xF
    machine.vmcs[Field.CR0_READ_SHADOW] = 0xB  # TS, so that CLTS changes something
    assert machine.run("clts").qualification == 0x20
    vmexit = machine.run("lmsw cx", rcx=0x1237)
    assert vmexit.qualification == 0x1237_0030
    machine.word(0x20_0000, 0xABC5)
    vmexit = machine.run("lmsw [0x200000]", rip=CODE)
    assert vmexit.qualification == 0xABC5_0070
    assert vmexit.guest_linear == 0x20_0000


def test_a_mov_to_cr0_that_leaves_owned_bits_alone_does_not_exit(bare: Make) -> None:
    machine = bare()
    machine.vmcs[Field.CR0_GUEST_HOST_MASK] = 0x8000_0001
    machine.vmcs[Field.CR0_READ_SHADOW] = 0x8000_0031
    vmexit = machine.run("mov rax, cr0; or eax, 8; mov cr0, rax; mov rbx, cr0; hlt")
    assert vmexit.name == "HLT"
    assert machine.regs.rbx == 0x8000_0039


@pytest.mark.parametrize(
    ("text", "bits"), [("mov rax, [rbx]", 1), ("mov [rbx], eax", 2), ("jmp rbx", 4)]
)
def test_ept_violation(bare: Make, text: str, bits: int) -> None:
    machine = bare()
    machine.word(0x3000 + 8, NOWHERE | 0x87)  # linear 2 MiB -> guest-physical 8 MiB
    vmexit = machine.run(f"nop; {text}", rbx=2 * MIB + 0x5678)
    assert vmexit.name == "EPT_VIOLATION"
    assert vmexit.guest_physical == NOWHERE + 0x5678
    assert vmexit.guest_linear == 2 * MIB + 0x5678
    # the access; no entry, so no permissions; linear address valid; of the final translation
    assert vmexit.qualification & 0x1BF == bits | 0x180
    assert vmexit.rip == (2 * MIB + 0x5678 if bits == 4 else CODE + 1)
    assert not vmexit.idt_vectoring_info


def test_ept_violation_of_a_page_table(bare: Make) -> None:
    machine = bare()
    machine.word(0x2000 + 8, NOWHERE | 7)  # the second GiB's directory lies nowhere
    vmexit = machine.run("mov rax, [rbx]", rbx=1 << 30 | 0x40_1000)
    assert vmexit.name == "EPT_VIOLATION"
    assert vmexit.guest_physical == NOWHERE + 2 * 8
    assert vmexit.guest_linear == 1 << 30 | 0x40_1000
    assert vmexit.qualification & 0x180 == 0x80  # linear address valid, not its final translation


@pytest.mark.parametrize(
    ("text", "error"),
    [("mov rax, [rbx]", 0), ("mov [rbx], rax", 2), ("jmp rbx", 0)],
)
def test_page_fault(bare: Make, text: str, error: int) -> None:
    machine = bare()
    machine.intercept(14)
    vmexit = machine.run(text, rbx=0x7654_3210)
    assert vmexit.name == "EXCEPTION_NMI"
    assert vmexit.qualification == 0x7654_3210
    assert vmexit.interruption_info == VALID | HAS_ERROR | HARDWARE | 14
    assert vmexit.interruption_error == error
    assert machine.regs.cr2 == 0  # an exit leaves CR2 to software


def test_page_fault_error_code_masks(bare: Make) -> None:
    """*Exception Bitmap*: a #PF exits if (code & mask == match) == bit 14."""
    machine = bare()
    machine.intercept(14)
    machine.gate(14, CODE + 0x200)
    machine.load("hlt", CODE + 0x200)
    machine.vmcs[Field.PAGE_FAULT_ERROR_CODE_MASK] = 2
    machine.vmcs[Field.PAGE_FAULT_ERROR_CODE_MATCH] = 2
    assert machine.run("mov rax, [rbx]", rbx=0x7000_0000).name == "HLT"
    assert machine.regs.cr2 == 0x7000_0000
    assert machine.run("mov [rbx], rax", rip=CODE).name == "EXCEPTION_NMI"


@pytest.mark.parametrize(
    ("text", "vector", "error", "kind"),
    [
        ("ud2", 6, None, HARDWARE),
        ("xor ecx, ecx; div ecx", 0, None, HARDWARE),
        ("mov ax, 0x50; mov ds, ax", 13, 0x50, HARDWARE),
        ("int 0x21", 13, 0x21 * 8 + 2, HARDWARE),
        ("mov rax, 0x8000000000000000; mov rax, [rax]", 13, 0, HARDWARE),
        ("mov rbp, 0x8000000000000000; mov rax, [rbp]", 12, 0, HARDWARE),
        # the manual, "Segment Overrides": other prefixes than those of FS and GS are ignored
        ("mov rax, 0x8000000000000000; .byte 0x36; mov rax, [rax]", 13, 0, HARDWARE),
        ("mov rbp, 0x8000000000000000; .byte 0x3e; mov rax, [rbp]", 12, 0, HARDWARE),
        ("int3", 3, None, SOFTWARE),
        (".byte 0xf1", 1, None, 5 << 8),
    ],
)
def test_exceptions(bare: Make, text: str, vector: int, error: int | None, kind: int) -> None:
    machine = bare()
    machine.intercept(0, 1, 3, 6, 12, 13)
    if text.startswith("int 0x21"):
        machine.vmcs[Field.GUEST_IDTR_LIMIT] = 0x20F  # up to vector 0x20
    vmexit = machine.run(text)
    assert vmexit.name == "EXCEPTION_NMI"
    has_error = 0 if error is None else HAS_ERROR
    assert vmexit.interruption_info == VALID | kind | vector | has_error
    assert vmexit.interruption_error == (error or 0)
    if kind != HARDWARE:
        assert vmexit.instruction_length == 1


def test_an_exception_during_delivery(bare: Make) -> None:
    """A #PF on the way through the IDT exits with the first event in IDT-vectoring information."""
    machine = bare()
    machine.intercept(14)
    machine.gate(6, CODE + 0x100)
    vmexit = machine.run("mov rsp, 0x70000000; ud2")
    assert vmexit.interruption_info & 0xFF == 14
    assert vmexit.qualification == 0x7000_0000 - 8
    assert vmexit.idt_vectoring_info == VALID | HARDWARE | 6
    assert vmexit.rip == CODE + len(assemble("mov rsp, 0x70000000"))


def test_triple_fault(bare: Make) -> None:
    machine = bare()
    machine.vmcs[Field.GUEST_IDTR_LIMIT] = 0
    vmexit = machine.run("nop; ud2")
    assert (vmexit.name, vmexit.rip) == ("TRIPLE_FAULT", CODE + 1)
    assert vmexit.qualification == 0


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("sgdt [rbx + 8]", "GDTR_IDTR"), ("sidt [rbx + 8]", "GDTR_IDTR"),
        ("lgdt [rbx + 8]", "GDTR_IDTR"), ("lidt [rbx + 8]", "GDTR_IDTR"),
        ("sldt [rbx + 8]", "LDTR_TR"), ("ltr [rbx + 8]", "LDTR_TR"),
    ],
)  # fmt: skip
def test_descriptor_tables(bare: Make, text: str, name: str) -> None:
    machine = bare()
    machine.control2(descriptor_table_exiting=1)
    vmexit = machine.run(text, rbx=0x20_0000)
    assert (vmexit.name, vmexit.qualification) == (name, 8)  # the displacement
    assert vmexit.instruction_length == len(assemble(text))
    info = vmexit.instruction_info
    assert info >> 7 & 7 == 2  # 64-bit addresses
    assert not info >> 10 & 1  # memory, not a register
    assert (info >> 23 & 15, info >> 27 & 1) == (3, 0)  # base RBX, valid
    assert info >> 22 & 1  # no index
    which = {"sgdt": 0, "sidt": 1, "lgdt": 2, "lidt": 3, "sldt": 0, "ltr": 3}[text.split()[0]]
    assert info >> 28 & 3 == which


def test_descriptor_tables_by_index_register_and_rip(bare: Make) -> None:
    machine = bare()
    machine.control2(descriptor_table_exiting=1)
    info = machine.run("lidt fs:[r9 * 4 - 16]").instruction_info
    assert (info & 3, info >> 18 & 15, info >> 22 & 1, info >> 27 & 1) == (2, 9, 0, 1)
    assert info >> 15 & 7 == 4
    assert machine.vmcs[Field.EXIT_QUALIFICATION] == 2**64 - 16
    info = machine.run("str r12d", rip=CODE).instruction_info
    assert (info >> 28 & 3, info >> 10 & 1, info >> 3 & 15) == (1, 1, 12)
    assert machine.vmcs[Field.EXIT_QUALIFICATION] == 0
    vmexit = machine.run("sgdt [rip + 0x1000]", rip=CODE)
    assert vmexit.qualification == CODE + vmexit.instruction_length + 0x1000
    assert vmexit.instruction_info >> 27 & 1


def test_interrupt_window_opens_behind_the_shadow(bare: Make) -> None:
    machine = bare()
    machine.control(interrupt_window_exiting=1)
    vmexit = machine.run("cli; nop; sti; nop; nop; hlt")
    assert vmexit.name == "INTERRUPT_WINDOW"
    assert vmexit.rip == CODE + 4  # one instruction after STI
    assert vmexit.instructions == 4


def test_an_injected_interrupt_goes_through_the_idt(bare: Make) -> None:
    machine = bare()
    machine.gate(0x40, CODE + 0x100)
    machine.load("hlt", CODE + 0x100)
    machine.load("nop; nop")
    machine.regs.rflags = 0x202
    machine.vmcs[Field.VM_ENTRY_INTR_INFO_FIELD] = VALID | 0x40
    vmexit = machine.enter()
    assert (vmexit.name, vmexit.rip, vmexit.instructions) == ("HLT", CODE + 0x100, 0)
    assert not machine.regs.rflags & 0x200
    frame = machine.regs.rsp
    assert machine.peek(frame) == CODE
    assert machine.peek(frame + 8) == CS64
    assert machine.peek(frame + 16) == 0x202
    assert not machine.vmcs[Field.VM_ENTRY_INTR_INFO_FIELD] & VALID  # cleared by the exit


def test_an_entry_with_impossible_state_fails(bare: Make) -> None:
    machine = bare()
    machine.load("hlt")
    machine.regs.cr0 = 0x8000_0010  # paging without protection
    vmexit = machine.enter()
    assert vmexit.is_entry_failure
    assert vmexit.name == "INVALID_STATE"
    assert vmexit.instructions == 0
    machine.regs.cr0 = 0x8000_0031
    assert machine.enter().name == "HLT"


def test_real_mode_exit_has_rip_as_offset(bare: Make) -> None:
    machine = bare(Mode.REAL)
    vmexit = machine.run("nop; cpuid")
    assert (vmexit.name, vmexit.rip) == ("CPUID", 1)
    assert machine.vmcs[Field.GUEST_CS_SELECTOR] == CODE >> 4


def test_places_of_the_bare_machine_are_what_the_guest_sees(bare: Make) -> None:
    machine = bare()
    machine.run("sgdt [0x200000]; sidt [0x200010]; str ax; mov bx, cs; hlt")
    assert machine.peek(0x20_0002) == GDT
    assert machine.peek(0x20_0012) == IDT
    assert machine.regs.rax & 0xFFFF == 0x30
    assert machine.regs.rbx & 0xFFFF == CS64
