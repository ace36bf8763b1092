"""The interrupt flag is the hypervisor's: CLI, STI, PUSHF, POPF, IRET; and CLAC, STAC."""

from typing import TYPE_CHECKING, Final

from hwmodel.arch.vmcs import Field
from hwmodel.vmx.exit import Exit
from vmm.exits.emulator.machine import GuestFault
from vmm.exits.trapped.operand import (
    AC,
    BLOCKED,
    IF,
    RF,
    RFLAGS,
    RIP,
    RSP,
    SHADOWS,
    VM,
    load,
    operand_size,
    set_sp,
    stack_at,
    stack_fault,
    store,
)
from vmm.inject import INTERRUPT_WINDOW, close_windows
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_BY_STI: Final = 1
_IOPL: Final = 3 << 12
_POPPED: Final = 0xDD5 | 1 << 14 | AC | 1 << 21  # arithmetic, TF, DF; NT, AC, ID
_CONTROLS: Final = Field.CPU_BASED_VM_EXEC_CONTROL.index


def handle_cli(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """No interrupt is delivered from here on."""
    vcpu.vmcs.fields[RFLAGS] &= ~IF
    return Outcome.SKIP


def handle_sti(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """Interrupts come again, after one more instruction."""
    fields = vcpu.vmcs.fields
    in_shadow = fields[BLOCKED] & SHADOWS
    vcpu.vmcs.skip_exit()
    fields[RFLAGS] |= IF
    if not in_shadow:
        fields[BLOCKED] |= _BY_STI
    return Outcome.RESUME


def _width(vcpu: "Vcpu", vmexit: Exit) -> int:
    size = operand_size(vmexit)
    return 8 if size == 4 and vcpu.vmcs.native.code_size == 64 else size


def handle_pushf(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Push the flags that the guest believes in."""
    width = _width(vcpu, vmexit)
    fields = vcpu.vmcs.fields
    sp, value = fields[RSP] - width, fields[RFLAGS] & ~(RF | VM) & (1 << 8 * width) - 1
    try:
        store(vcpu, vmexit, stack_at(vcpu, sp), width, value)
    except GuestFault as fault:
        raise stack_fault(fault) from None
    set_sp(vcpu, sp)
    return Outcome.SKIP


def handle_popf(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Manual: POPF, "Effect of POPF/POPFD/POPFQ on the EFLAGS Register"."""
    width = _width(vcpu, vmexit)
    fields = vcpu.vmcs.fields
    sp = fields[RSP]
    try:
        value = load(vcpu, vmexit, stack_at(vcpu, sp), width)
    except GuestFault as fault:
        raise stack_fault(fault) from None
    old, cpl = fields[RFLAGS], vcpu.vmcs.native.cpl
    mask = _POPPED | (_IOPL if cpl == 0 else 0) | (IF if cpl <= old >> 12 & 3 else 0)
    mask &= (1 << 8 * width) - 1
    set_sp(vcpu, sp + width)
    vcpu.vmcs.skip_exit()  # by the old TF
    new = old & ~mask & ~RF | value & mask
    fields[RFLAGS] = new
    if new & ~old & IF and fields[_CONTROLS] & INTERRUPT_WINDOW:
        close_windows(vcpu)  # what waited for it goes in now
    return Outcome.RESUME


def handle_iret(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """Back to what was interrupted, by the processor's own IRET once software has seen it.

    It loads segments from the guest's tables as no software does better. An interrupt that waits
    for IF has a window open.
    """
    native = vcpu.vmcs.native
    native.permitted, native.permitted_rip = 1, vcpu.vmcs.fields[RIP]
    return Outcome.RESUME


def handle_clac(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """SMAP is in force again."""
    vcpu.vmcs.fields[RFLAGS] &= ~AC
    return Outcome.SKIP


def handle_stac(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """Ring 0 may touch user pages."""
    vcpu.vmcs.fields[RFLAGS] |= AC
    return Outcome.SKIP
