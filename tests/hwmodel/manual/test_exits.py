"""What exits tell, row by row as the manual says it: exits.txt."""

from collections.abc import Callable

from hwmodel.arch.vmcs import Field
from tests.bare import Bare
from tests.hwmodel.manual.machine import Row, table

Make = Callable[..., Bare]
FAULT_AT = 0x4000_0000


@table("exits.txt")
def test_exits(bare: Make, row: Row) -> None:
    text, name, qualification, length, _ = row.cells
    machine = bare()
    machine.control(
        rdtsc_exiting=1, rdpmc_exiting=1, invlpg_exiting=1, mov_dr_exiting=1, cr3_load_exiting=1,
        cr3_store_exiting=1, cr8_load_exiting=1, cr8_store_exiting=1, pause_exiting=1,
    )  # fmt: skip
    machine.control2(
        wbinvd_exiting=1, rdrand_exiting=1, rdseed_exiting=1, descriptor_table_exiting=1
    )
    machine.vmcs[Field.CR0_GUEST_HOST_MASK] = machine.vmcs[Field.CR4_GUEST_HOST_MASK] = ~0
    machine.vmcs[Field.CR0_READ_SHADOW] = 0x8000_0039  # TS is set, for CLTS
    machine.vmcs[Field.CR4_READ_SHADOW] = machine.regs.cr4
    machine.intercept(3, 6, 14)
    vmexit = machine.run(
        text, rax=0x1234, rbx=0x20_1000, rcx=0x10, rdx=0x3F8, rsi=FAULT_AT, rdi=0x30_0000,
        rbp=0x8000_0031, r9=0,
    )  # fmt: skip
    assert vmexit.name == name
    assert hex(vmexit.qualification) == qualification
    assert str(vmexit.instruction_length) == length
