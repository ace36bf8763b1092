"""Ways between rings that really lead to the hypervisor: SYSCALL, SYSENTER and back, INT n.

CS and SS are made up, not read ("SYSCALL", "SYSENTER" in the manual's volume 2).
"""

from typing import TYPE_CHECKING, Final

from hwmodel.arch.addr import is_canonical
from hwmodel.arch.events import EventType
from hwmodel.arch.registers import Cr4
from hwmodel.arch.vmcs import Field
from hwmodel.vmx.exit import Exit
from vmm.exits.emulator.machine import GuestFault
from vmm.exits.trapped.operand import GP, IF, RF, RFLAGS, RIP, RSP, TF, VM, operand_size, retire
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_CS: Final = (
    Field.GUEST_CS_SELECTOR.index, Field.GUEST_CS_BASE.index, Field.GUEST_CS_LIMIT.index,
    Field.GUEST_CS_AR_BYTES.index,
)  # fmt: skip
_SS: Final = (
    Field.GUEST_SS_SELECTOR.index, Field.GUEST_SS_BASE.index, Field.GUEST_SS_LIMIT.index,
    Field.GUEST_SS_AR_BYTES.index,
)  # fmt: skip
_CODE64, _CODE32, _DATA = 0xA09B, 0xC09B, 0xC093  # flat, present, accessed; DPL in bits 5 and 6
_RETURNED: Final = 0x3C7FD7  # what SYSRET takes of R11: all but RF and VM
_DEFINED: Final = 0x3F7FD7
_LMA: Final = 1 << 10
_LONG: Final = 1 << 13  # CS.L
_LA57: Final = int(Cr4.of(la57=1))
_MASK32, _MASK64 = (1 << 32) - 1, (1 << 64) - 1
_VALID: Final = 1 << 31


def _enter_flat(vcpu: "Vcpu", cs: int, ss: int, cpl: int, *, wide: bool) -> None:
    fields = vcpu.vmcs.fields
    for segment, selector, rights in (
        (_CS, cs, _CODE64 if wide else _CODE32),
        (_SS, ss, _DATA),
    ):
        values = selector & 0xFFFC | cpl, 0, _MASK32, rights | cpl << 5
        for index, value in zip(segment, values, strict=True):
            fields[index] = value


def handle_syscall(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """To IA32_LSTAR in ring 0, on AMD's processors from 32-bit code to CSTAR."""
    fields, native, gpr = vcpu.vmcs.fields, vcpu.vmcs.native, vcpu.regs.gpr
    target = native.lstar if fields[_CS[3]] & _LONG else native.cstar
    flags = fields[RFLAGS] & ~RF
    gpr[1] = fields[RIP] + vmexit.instruction_length & _MASK64
    gpr[11] = flags
    fields[RFLAGS] = flags & ~native.fmask & _DEFINED | 2
    cs = native.star >> 32 & 0xFFFC
    _enter_flat(vcpu, cs, cs + 8, 0, wide=True)
    return retire(vcpu, target, traps=bool(fields[RFLAGS] & TF))


def handle_sysret(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Back to ring 3, at RCX."""
    fields, gpr = vcpu.vmcs.fields, vcpu.regs.gpr
    wide, rip = operand_size(vmexit) == 8, gpr[1]
    if wide and not _is_target(vcpu, rip):
        raise GuestFault(GP, 0)
    base = vcpu.vmcs.native.star >> 48
    fields[RFLAGS] = gpr[11] & _RETURNED | 2
    _enter_flat(vcpu, base + (16 if wide else 0), base + 8, 3, wide=wide)
    return retire(vcpu, rip if wide else rip & _MASK32, traps=bool(fields[RFLAGS] & TF))


def handle_sysenter(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """To IA32_SYSENTER_EIP in ring 0."""
    fields, vmcs = vcpu.vmcs.fields, vcpu.vmcs
    cs, wide = vmcs[Field.GUEST_SYSENTER_CS] & 0xFFFC, bool(vcpu.regs.efer & _LMA)
    if not vcpu.regs.cr0 & 1 or not cs:
        raise GuestFault(GP, 0)
    wrap = _MASK64 if wide else _MASK32
    fields[RSP] = vmcs[Field.GUEST_SYSENTER_ESP] & wrap
    fields[RFLAGS] &= ~(VM | IF | RF)
    _enter_flat(vcpu, cs, cs + 8, 0, wide=wide)
    rip = vmcs[Field.GUEST_SYSENTER_EIP] & wrap
    return retire(vcpu, rip, traps=bool(fields[RFLAGS] & TF))


def handle_sysexit(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Back to ring 3, at RDX with the stack at RCX."""
    fields, gpr = vcpu.vmcs.fields, vcpu.regs.gpr
    cs, wide = vcpu.vmcs[Field.GUEST_SYSENTER_CS] & 0xFFFC, operand_size(vmexit) == 8
    if not vcpu.regs.cr0 & 1 or not cs:
        raise GuestFault(GP, 0)
    rsp, rip = gpr[1], gpr[2]
    if wide and not (_is_target(vcpu, rsp) and _is_target(vcpu, rip)):
        raise GuestFault(GP, 0)
    fields[RSP] = rsp if wide else rsp & _MASK32
    traps = bool(fields[RFLAGS] & TF)
    cs += 32 if wide else 16
    _enter_flat(vcpu, cs, cs + 8, 3, wide=wide)
    return retire(vcpu, rip if wide else rip & _MASK32, traps=traps)


def _is_target(vcpu: "Vcpu", address: int) -> bool:
    return is_canonical(address, 57 if vcpu.regs.cr4 & _LA57 else 48)


def handle_int(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """INT n goes through the guest's own table."""
    info = _VALID | EventType.SOFTWARE_INTERRUPT << 8 | vmexit.interruption_info & 0xFF
    vcpu.vmcs[Field.VM_ENTRY_INTR_INFO_FIELD] = info
    vcpu.vmcs[Field.VM_ENTRY_INSTRUCTION_LEN] = vmexit.instruction_length
    return Outcome.RESUME
