"""One row for each control bit that changes whether something exits: with it, and without it.

Manual, "VM-Execution Control Fields" and "Instructions That Cause VM Exits Conditionally". Every row
runs a program that ends in VMCALL: what exits before that is the control's doing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from hwmodel.arch.controls import PinBased, Primary, Secondary
from hwmodel.arch.vmcs import Field
from hwmodel.arch.word import Word
from hwmodel.vmx.capabilities import IMPLEMENTED
from tests.bare import CODE, Bare

Make = Callable[..., Bare]
PAGE = 0x30_0000
FIELDS: dict[type[Word], Field] = {
    PinBased: Field.PIN_BASED_VM_EXEC_CONTROL,
    Primary: Field.CPU_BASED_VM_EXEC_CONTROL,
    Secondary: Field.SECONDARY_VM_EXEC_CONTROL,
}


@dataclass(frozen=True, slots=True)
class Row:
    """`program` exits with `on` when the control is 1 and with `off` when it is 0."""

    word: type[Word]
    control: str
    program: str
    on: str
    off: str = "VMCALL"
    fields: dict[Field, int] = field(default_factory=dict)
    memory: dict[int, int] = field(default_factory=dict)
    before: Callable[[Bare], None] | None = None


def _interrupt(machine: Bare) -> None:
    machine.pcpu.raise_interrupt(0x41)


def _nmi(machine: Bare) -> None:
    machine.pcpu.raise_nmi()


LOOP = "mov ecx, 50; l: pause; loop l"
ROWS = (
    Row(PinBased, "external_interrupt_exiting", "nop", "EXTERNAL_INTERRUPT", before=_interrupt),
    Row(PinBased, "nmi_exiting", "nop", "EXCEPTION_NMI", "TRIPLE_FAULT", before=_nmi),
    Row(
        PinBased, "activate_vmx_preemption_timer", "nop; nop; nop; nop", "PREEMPTION_TIMER",
        fields={Field.VMX_PREEMPTION_TIMER_VALUE: 2},
    ),
    Row(Primary, "interrupt_window_exiting", "sti; nop; nop", "INTERRUPT_WINDOW"),
    Row(Primary, "nmi_window_exiting", "nop", "NMI_WINDOW"),
    Row(Primary, "hlt_exiting", "hlt", "HLT", "DEADLINE"),
    Row(Primary, "invlpg_exiting", "invlpg [rbx]", "INVLPG"),
    Row(Primary, "mwait_exiting", "mwait", "MWAIT_INSTRUCTION"),
    Row(Primary, "monitor_exiting", "monitor", "MONITOR_INSTRUCTION"),
    Row(Primary, "rdpmc_exiting", "rdpmc", "RDPMC", "TRIPLE_FAULT"),
    Row(Primary, "rdtsc_exiting", "rdtsc", "RDTSC"),
    Row(Primary, "cr3_load_exiting", "mov rax, cr3; mov cr3, rax", "CR_ACCESS"),
    Row(Primary, "cr3_store_exiting", "mov rax, cr3", "CR_ACCESS"),
    Row(Primary, "cr8_load_exiting", "mov cr8, rbx", "CR_ACCESS"),
    Row(Primary, "cr8_store_exiting", "mov rax, cr8", "CR_ACCESS"),
    Row(Primary, "mov_dr_exiting", "mov rax, dr7", "DR_ACCESS"),
    Row(Primary, "uncond_io_exiting", "in al, 0x80", "IO_INSTRUCTION"),
    Row(
        Primary, "use_io_bitmaps", "in al, 0x80", "IO_INSTRUCTION",
        fields={Field.IO_BITMAP_A: PAGE, Field.IO_BITMAP_B: PAGE}, memory={PAGE + 0x10: 1},
    ),
    Row(
        Primary, "use_msr_bitmaps", "mov ecx, 0xc0000102; rdmsr", "VMCALL", "MSR_READ",
        fields={Field.MSR_BITMAP: PAGE},
    ),
    Row(Primary, "monitor_trap_flag", "nop", "MONITOR_TRAP_FLAG"),
    Row(Primary, "pause_exiting", "pause", "PAUSE_INSTRUCTION"),
    Row(Primary, "activate_secondary_controls", "wbinvd", "WBINVD", "VM_FAIL"),
    Row(Secondary, "descriptor_table_exiting", "sidt [rbx]", "GDTR_IDTR"),
    Row(Secondary, "descriptor_table_exiting", "sldt ax", "LDTR_TR"),
    Row(Secondary, "enable_rdtscp", "rdtscp", "VMCALL", "TRIPLE_FAULT"),
    Row(Secondary, "wbinvd_exiting", "wbinvd", "WBINVD"),
    Row(Secondary, "unrestricted_guest", "nop", "VMCALL", "INVALID_STATE"),
    Row(
        Secondary, "pause_loop_exiting", LOOP, "PAUSE_INSTRUCTION",
        fields={Field.PLE_GAP: 10, Field.PLE_WINDOW: 20},
    ),
    Row(Secondary, "rdrand_exiting", "rdrand rax", "RDRAND"),
    Row(Secondary, "rdseed_exiting", "rdseed rax", "RDSEED"),
    Row(Secondary, "enable_invpcid", "mov eax, 2; mov rbx, rsp; invpcid rax, [rbx]", "VMCALL", "TRIPLE_FAULT"),
    Row(Secondary, "enable_vm_functions", "xor eax, eax; .byte 0x0f, 0x01, 0xd4", "VMFUNC", "TRIPLE_FAULT"),
)  # fmt: skip

# Bits that change something else than whether something exits: the test that is about them.
ELSEWHERE = {
    "virtual_nmis": "test_virtual_nmis_block_what_is_injected",
    "use_tsc_offsetting": "test_the_tsc_is_scaled_then_moved",
    "use_tsc_scaling": "test_the_tsc_is_scaled_then_moved",
    "enable_ept": "test_entry_checks: unrestricted_guest_needs_ept; the pages: test_pcpu_memory",
    "process_posted_interrupts": "test_apicv: test_a_notification_posts_without_an_exit",
    "virtualize_apic_accesses": "test_apic_access: test_what_is_not_virtualized_exits",
    "use_tpr_shadow": "test_apicv: test_cr8_is_the_shadow",
    "virtualize_x2apic_mode": "test_apicv: test_x2apic_registers_are_read_from_the_page",
    "apic_register_virtualization": "test_apicv: test_without_register_virtualization_only_the_tpr_is",
    "virtual_interrupt_delivery": "test_apicv: test_a_self_ipi_is_delivered_without_an_exit",
    "enable_pml": "test_ept_events: test_a_page_is_logged_when_it_gets_dirty",
    "ept_violation_ve": "test_ept_events: test_a_violation_becomes_an_exception",
    "mode_based_execute_control_for_ept": "test_walk_references: test_mode_based_execute_control",
    "enable_vpid": "test_entry_checks: vpid_is_not_zero; the tags: the TLB's own tests",
}


def make_row(bare: Make, row: Row, *, on: bool) -> Bare:
    machine = bare()
    if row.control == "unrestricted_guest":
        machine.regs.efer, machine.regs.cr0 = 0, 0x21  # no paging: only an unrestricted guest may
        machine.vmcs[Field.GUEST_CS_AR_BYTES] = 0xC09B
    where = FIELDS[row.word]
    bit = int(row.word.of(**{row.control: 1}))
    for target, value in row.fields.items():
        machine.vmcs[target] = value
    for at, value in row.memory.items():
        machine.word(at, value)
    machine.vmcs[Field.SECONDARY_VM_EXEC_CONTROL] &= ~(1 << 3)
    machine.vmcs[Field.CPU_BASED_VM_EXEC_CONTROL] &= ~(1 << 24)
    if row.control == "activate_secondary_controls":
        machine.control2(wbinvd_exiting=1)
    if row.control == "nmi_exiting":
        machine.vmcs[Field.PIN_BASED_VM_EXEC_CONTROL] &= ~(1 << 5)
    machine.vmcs[where] = machine.vmcs[where] & ~bit | (bit if on else 0)
    machine.load(f"{row.program}; vmcall")
    machine.regs.rbx = 8
    if row.before is not None:
        row.before(machine)
    return machine


@pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.control}:{row.program}")
def test_what_exits(bare: Make, row: Row, on: bool) -> None:
    machine = make_row(bare, row, on=on)
    if row.control == "activate_secondary_controls" and not on:
        machine.regs.efer = machine.regs.efer  # long mode needs none of them: the guest just runs
        assert machine.enter(machine.clock.now + 1000).name == "VMCALL"
        return
    assert machine.enter(machine.clock.now + 1000).name == (row.on if on else row.off)


def test_every_control_that_is_offered_has_a_row() -> None:
    for word in FIELDS:
        offered = {name for name, part in word.layout.items() if IMPLEMENTED[word] & part.mask}
        rows = {row.control for row in ROWS if row.word is word}
        assert offered - set(ELSEWHERE) == rows
    named = {
        name
        for word in FIELDS
        for name in word.layout
        if IMPLEMENTED[word] & word.layout[name].mask
    }
    assert set(ELSEWHERE) <= named


# ---- what a row cannot say ----


def test_cr3_targets_do_not_exit(bare: Make) -> None:
    machine = bare()
    machine.control(cr3_load_exiting=1)
    machine.vmcs[Field.CR3_TARGET_COUNT] = 2
    machine.vmcs[Field.CR3_TARGET_VALUE1] = 0x1000
    machine.vmcs[Field.CR3_TARGET_VALUE2] = 0x1008  # beyond the count
    vmexit = machine.run("mov cr3, rax; mov cr3, rbx; hlt", rax=0x1000, rbx=0x1008)
    assert (vmexit.name, vmexit.rip) == ("CR_ACCESS", CODE + 3)


def test_the_tsc_is_scaled_then_moved(bare: Make) -> None:
    machine = bare()
    machine.control(use_tsc_offsetting=1)
    machine.control2(use_tsc_scaling=1)
    machine.vmcs[Field.TSC_MULTIPLIER] = 3 << 47  # 1.5
    machine.vmcs[Field.TSC_OFFSET] = 1000
    machine.pcpu.idle(2000)
    assert machine.run("rdtsc; vmcall").name == "VMCALL"
    assert machine.regs.rax == 2000 * 3 // 2 + 1000
    machine.vmcs[Field.SECONDARY_VM_EXEC_CONTROL] &= ~(1 << 25)
    assert machine.run("rdtsc; vmcall", rip=CODE).name == "VMCALL"
    assert machine.regs.rax == 2001 + 1000


def test_the_preemption_timer_counts_cycles_and_is_saved(bare: Make) -> None:
    machine = bare()
    machine.vmcs[Field.PIN_BASED_VM_EXEC_CONTROL] |= 1 << 6
    machine.vmcs[Field.VM_EXIT_CONTROLS] |= 1 << 22
    machine.vmcs[Field.VMX_PREEMPTION_TIMER_VALUE] = 100
    machine.load("nop;" * 40 + "cpuid; l: jmp l")
    first = machine.enter()
    assert (first.name, first.instructions) == ("CPUID", 40)
    assert machine.vmcs[Field.VMX_PREEMPTION_TIMER_VALUE] == 60
    machine.skip(first)
    second = machine.enter()
    assert (second.name, second.instructions) == ("PREEMPTION_TIMER", 101)
    assert machine.vmcs[Field.VMX_PREEMPTION_TIMER_VALUE] == 0
    assert machine.enter().instructions == 101  # zero: before any instruction


def test_the_timer_runs_on_over_a_stop(bare: Make) -> None:
    machine = bare()
    machine.vmcs[Field.PIN_BASED_VM_EXEC_CONTROL] |= 1 << 6
    machine.vmcs[Field.VMX_PREEMPTION_TIMER_VALUE] = 100
    machine.load("l: jmp l")
    assert machine.enter(30).name == "DEADLINE"
    assert machine.enter(70).name == "DEADLINE"
    last = machine.enter()
    assert (last.name, last.instructions) == ("PREEMPTION_TIMER", 100)


def test_a_pause_loop_is_judged_by_gap_and_window(bare: Make) -> None:
    machine = bare()
    machine.control2(pause_loop_exiting=1)
    machine.vmcs[Field.PLE_GAP], machine.vmcs[Field.PLE_WINDOW] = 3, 1000
    assert machine.run("mov ecx, 900; l: pause; loop l; hlt").name == "PAUSE_INSTRUCTION"
    wide = "mov ecx, 900; l: pause; nop; nop; nop; loop l; hlt"  # five cycles apart: no loop
    assert machine.run(wide, rip=CODE).name == "HLT"


def test_pause_loops_of_programs_do_not_exit(bare: Make) -> None:
    machine = bare()
    machine.control2(pause_loop_exiting=1)
    machine.vmcs[Field.PLE_GAP], machine.vmcs[Field.PLE_WINDOW] = 100, 10
    for name in ("CS", "SS"):
        machine.vmcs[Field[f"GUEST_{name}_AR_BYTES"]] |= 3 << 5
    machine.vmcs[Field.GUEST_SS_SELECTOR] = 0x2B
    machine.word(0x3000, 0x87)
    machine.load("l: pause; jmp l")
    assert machine.enter(500).name == "DEADLINE"


def test_monitor_trap_after_each_instruction_whatever_it_is(bare: Make) -> None:
    machine = bare()
    machine.control(monitor_trap_flag=1)
    machine.gate(6, CODE + 0x100)
    machine.load("hlt", CODE + 0x100)
    code = machine.load("nop; mov rax, cr0; pushfq; popfq; xor eax, eax; ud2")
    seen = []
    for _ in range(6):
        vmexit = machine.enter()
        assert (vmexit.name, vmexit.qualification) == ("MONITOR_TRAP_FLAG", 0)
        seen.append(vmexit.rip)
    at = CODE + len(code) - 2
    assert seen == [CODE + 1, CODE + 4, CODE + 5, CODE + 6, at, CODE + 0x100]  # behind delivery


def test_monitor_trap_leaves_the_guests_own_step_pending(bare: Make) -> None:
    machine = bare()
    machine.control(monitor_trap_flag=1)
    machine.regs.rflags |= 0x100
    assert machine.run("nop; nop").name == "MONITOR_TRAP_FLAG"
    assert machine.vmcs[Field.GUEST_PENDING_DBG_EXCEPTIONS] == 1 << 14


def test_an_injected_monitor_trap_comes_before_any_instruction(bare: Make) -> None:
    machine = bare()
    machine.vmcs[Field.VM_ENTRY_INTR_INFO_FIELD] = 1 << 31 | 7 << 8
    vmexit = machine.run("nop; hlt")
    assert (vmexit.name, vmexit.rip) == ("MONITOR_TRAP_FLAG", CODE)


def test_virtual_nmis_block_what_is_injected(bare: Make) -> None:
    machine = bare()
    machine.gate(2, CODE + 0x100)
    machine.load("hlt", CODE + 0x100)
    machine.vmcs[Field.VM_ENTRY_INTR_INFO_FIELD] = 1 << 31 | 2 << 8 | 2
    assert machine.run("nop").name == "HLT"
    assert machine.vmcs[Field.GUEST_INTERRUPTIBILITY_INFO] == 8
    machine.control(nmi_window_exiting=1)
    machine.pcpu.raise_nmi()  # a real one is not what the guest's IRET unblocks
    real = machine.enter()
    assert (real.name, real.interruption_info) == ("EXCEPTION_NMI", 1 << 31 | 2 << 8 | 2)


@pytest.mark.parametrize("acknowledges", [True, False])
def test_an_external_interrupt_exits_with_its_vector_if_acknowledged(
    bare: Make, acknowledges: bool
) -> None:
    machine = bare()
    machine.vmcs[Field.PIN_BASED_VM_EXEC_CONTROL] |= 1
    if not acknowledges:
        machine.vmcs[Field.VM_EXIT_CONTROLS] &= ~(1 << 15)
    machine.pcpu.raise_interrupt(0x41)
    machine.load("l: jmp l")
    first = machine.enter()
    assert first.name == "EXTERNAL_INTERRUPT"
    assert first.interruption_info == (1 << 31 | 0x41 if acknowledges else 0)
    again = machine.enter(machine.clock.now + 5)
    assert again.name == ("DEADLINE" if acknowledges else "EXTERNAL_INTERRUPT")


def test_an_external_interrupt_that_does_not_exit_waits_for_if(bare: Make) -> None:
    machine = bare()
    machine.gate(0x41, CODE + 0x100)
    machine.load("hlt", CODE + 0x100)
    machine.pcpu.raise_interrupt(0x41)
    vmexit = machine.run("nop; sti; nop; nop; nop")
    assert (vmexit.name, vmexit.rip) == ("HLT", CODE + 0x100)
    assert machine.peek(machine.regs.rsp) == CODE + 3  # behind the shadow of STI


def test_a_halted_guest_waits_for_what_comes(bare: Make) -> None:
    machine = bare()
    machine.vmcs[Field.CPU_BASED_VM_EXEC_CONTROL] &= ~(1 << 7)
    machine.gate(0x41, CODE + 0x100)
    machine.load("vmcall", CODE + 0x100)
    machine.load("sti; hlt; nop")
    stop = machine.enter(500)
    assert (stop.name, stop.cycle, stop.instructions) == ("DEADLINE", 500, 2)
    assert machine.vmcs[Field.GUEST_ACTIVITY_STATE] == 1
    machine.pcpu.raise_interrupt(0x41)
    assert machine.enter(600).name == "VMCALL"
    assert machine.vmcs[Field.GUEST_ACTIVITY_STATE] == 0
    assert machine.peek(machine.regs.rsp) == CODE + 2


@pytest.mark.parametrize(
    ("text", "name", "info"),
    [
        ("vmxoff", "VMOFF", 0), ("vmlaunch", "VMLAUNCH", 0), ("vmresume", "VMRESUME", 0),
        # base 26:23, index invalid 22, segment 17:15, address size 9:7
        ("vmclear [rbx]", "VMCLEAR", 3 << 23 | 1 << 22 | 3 << 15 | 2 << 7),
        ("vmptrld [rbx]", "VMPTRLD", 3 << 23 | 1 << 22 | 3 << 15 | 2 << 7),
        ("vmptrst [rbx]", "VMPTRST", 3 << 23 | 1 << 22 | 3 << 15 | 2 << 7),
        ("vmxon [rbx]", "VMON", 3 << 23 | 1 << 22 | 3 << 15 | 2 << 7),
        # a register operand: bit 10, its number 6:3; the second register 31:28
        ("vmread rcx, rdx", "VMREAD", 2 << 28 | 1 << 10 | 1 << 3 | 2 << 7),
        ("vmwrite rcx, rdx", "VMWRITE", 1 << 28 | 1 << 10 | 2 << 3 | 2 << 7),
        ("invept rcx, [rbx]", "INVEPT", 1 << 28 | 3 << 23 | 1 << 22 | 3 << 15 | 2 << 7),
        ("invvpid rcx, [rbx]", "INVVPID", 1 << 28 | 3 << 23 | 1 << 22 | 3 << 15 | 2 << 7),
    ],
)  # fmt: skip
def test_vmx_instructions_exit(bare: Make, text: str, name: str, info: int) -> None:
    vmexit = bare().run(f"nop; {text}", rbx=0x1234)
    assert (vmexit.name, vmexit.instruction_info) == (name, info)
    assert vmexit.qualification == 0


@pytest.mark.parametrize("text", ["sgdt [rbx]", "sidt [rbx]", "sldt ax", "str ax", "smsw ax"])
@pytest.mark.parametrize("umip", [True, False])
def test_umip_keeps_programs_from_the_tables(bare: Make, text: str, umip: bool) -> None:
    machine = bare()
    machine.intercept(13)
    machine.control2(descriptor_table_exiting=0)
    machine.regs.cr4 |= umip << 11
    machine.word(0x3000, 0x87)
    for name in ("CS", "SS"):
        machine.vmcs[Field[f"GUEST_{name}_AR_BYTES"]] |= 3 << 5
    machine.vmcs[Field.GUEST_SS_SELECTOR] = 0x2B
    vmexit = machine.run(f"{text}; vmcall", rbx=0x9000)
    assert vmexit.name == ("EXCEPTION_NMI" if umip else "VMCALL")


def test_an_init_exits_before_all_else(bare: Make) -> None:
    machine = bare()
    machine.control(interrupt_window_exiting=1)
    machine.regs.rflags |= 0x200
    machine.pcpu.raise_init()
    assert machine.run("nop").name == "INIT_SIGNAL"
    assert machine.enter().name == "INTERRUPT_WINDOW"
