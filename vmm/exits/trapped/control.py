"""Control and debug registers: each access traps, the hypervisor's copy is the guest's register."""

from typing import TYPE_CHECKING, Final

from hwmodel.arch.registers import Cr0, Cr4
from hwmodel.arch.vmcs import Field
from hwmodel.vmx.exit import Exit
from vmm.exits.cr import write_cr0
from vmm.exits.emulator.machine import GuestFault
from vmm.exits.shadowed import handle_control_registers
from vmm.exits.trapped.operand import GP, RF, RFLAGS, UD, is_memory, word
from vmm.inject import inject_exception, show_debug_cause
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_TO, _FROM, _CLTS, _LMSW = 0, 1, 2, 3
_PE: Final = 1
_CR0_PAGING: Final = int(Cr0.of(pe=1, pg=1, wp=1, cd=1, nw=1))
_DE: Final = int(Cr4.of(de=1))
_DB: Final = 1
_BD: Final = 1 << 13  # in DR6; DR7's GD stands at the same place
_MASK32: Final = (1 << 32) - 1


def handle_cr(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Decode the qualification as of VT-x; what concerns paging, the shadow hears of."""
    q = vmexit.qualification
    number, kind, register = q & 15, q >> 4 & 3, q >> 8 & 15
    if kind == _FROM:
        vcpu.set_register(register, _read(vcpu, number), 8 if vcpu.code_bits() == 64 else 4)
        return Outcome.SKIP
    if kind == _TO and number == 2:
        vcpu.regs.cr2 = vcpu.regs[register] & vcpu.natural_mask()
        return Outcome.SKIP
    if number == 0:
        return _write_cr0(vcpu, vmexit)
    return handle_control_registers(vcpu, vmexit)


def _read(vcpu: "Vcpu", number: int) -> int:
    if number == 8:
        return vcpu.lapic.cr8
    if number == 0:
        return vcpu.guest_cr0()
    if number == 4:
        return vcpu.guest_cr4()
    return int(vcpu.regs.cr2 if number == 2 else vcpu.regs.cr3)


def _write_cr0(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """MOV to CR0, CLTS, LMSW; most of them change nothing that tables depend on."""
    q, old = vmexit.qualification, vcpu.guest_cr0()
    if q >> 4 & 3 == _CLTS:
        value = old & ~8
    elif q >> 4 & 3 == _LMSW:
        source = word(vcpu, vmexit) if is_memory(vmexit) else q >> 16
        value = old & ~0xE | source & 0xF | old & _PE
    else:
        value = vcpu.regs[q >> 8 & 15] & vcpu.natural_mask()
    if not write_cr0(vcpu, value):
        raise GuestFault(GP, 0)
    if (value ^ old) & _CR0_PAGING:
        assert vcpu.shadow is not None
        vcpu.shadow.reload()
    return Outcome.SKIP


def handle_dr(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Manual: MOV DR. The guest's debug registers are the processor's while it runs."""
    q, regs = vmexit.qualification, vcpu.regs
    number, register = q & 15, q >> 8 & 15
    if number > 7 or (number in (4, 5) and regs.cr4 & _DE):
        raise GuestFault(UD, None)
    if regs.dr7 & _BD:
        return _general_detect(vcpu)
    number = {4: 6, 5: 7}.get(number, number)
    if q >> 4 & 1:
        value = regs.dr6 if number == 6 else regs.dr7 if number == 7 else regs.dr(number)
        vcpu.set_register(register, value, 8 if vcpu.code_bits() == 64 else 4)
        return Outcome.SKIP
    value = regs[register] & vcpu.natural_mask()
    if number >= 6 and value >> 32:
        raise GuestFault(GP, 0)
    if number == 6:
        regs.dr6 = value & 0xE00F | 0xFFFF_0FF0
    elif number == 7:
        vcpu.vmcs[Field.GUEST_DR7] = value & 0xFFFF_2BFF | 0x400
    else:
        vcpu.vmcs.native.dr[number] = value
    return Outcome.SKIP


def _general_detect(vcpu: "Vcpu") -> Outcome:
    """Raise #DB before the access; it is a fault, so its frame has RF set."""
    show_debug_cause(vcpu, _BD)
    vcpu.vmcs[Field.GUEST_DR7] = vcpu.regs.dr7 & ~_BD
    vcpu.vmcs.fields[RFLAGS] |= RF
    inject_exception(vcpu, _DB, None)
    return Outcome.RESUME
