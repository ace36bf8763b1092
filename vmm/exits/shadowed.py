"""Exits of a guest whose page tables are shadowed: page faults, CR3, INVLPG, INVPCID.

A page fault is one of four things: a mapping that the shadow has not made yet, the guest's own
fault, a device, or a write that CR0.WP = 0 allows, which no entry can say for a supervisor alone.
"""

from typing import TYPE_CHECKING, Final

from hwmodel.arch.addr import is_canonical
from hwmodel.arch.events import EventType, Vector
from hwmodel.arch.exits import ExitReason as R
from hwmodel.arch.registers import Cr0, Cr4
from hwmodel.arch.vmcs import Field
from hwmodel.mem.fault import Fault
from hwmodel.vmx.exit import Exit
from vmm.exits.absent import deliver_again
from vmm.exits.cr import handle_cr_access, load_pdptes
from vmm.exits.emulate import Status, emulate
from vmm.exits.emulator.machine import GuestFault
from vmm.exits.ept import handle_ept_violation
from vmm.exits.exception import handle_exception_nmi
from vmm.exits.machine_view import MachineView
from vmm.exits.vectored import VectoredEvent, inject_during
from vmm.inject import inject_exception
from vmm.memory.shadow.guest_walk import Denied, Found, Unbacked
from vmm.outcome import Outcome, StopReason
from vmm.technique.shadow import Shadow

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_VALID: Final = 1 << 31
_WRITE, _FETCH = 1 << 1, 1 << 4  # of a page-fault error code
_LINEAR, _TRANSLATION = 1 << 7, 1 << 8  # of an EPT violation's qualification
_TO, _FROM = 0, 1
_KEEP: Final = 1 << 63
_LMA: Final = 1 << 10
_PG, _PAE, _PCIDE = int(Cr0.of(pg=1)), int(Cr4.of(pae=1)), int(Cr4.of(pcide=1))
_SEGMENT_BASES: Final = (
    Field.GUEST_ES_BASE, Field.GUEST_CS_BASE, Field.GUEST_SS_BASE,
    Field.GUEST_DS_BASE, Field.GUEST_FS_BASE, Field.GUEST_GS_BASE,
)  # fmt: skip


def _shadow(vcpu: "Vcpu") -> Shadow:
    assert vcpu.shadow is not None, "these handlers are for shadowed guests"
    return vcpu.shadow


def handle_exception(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Page faults are the shadow's; other exceptions are for observers."""
    info = vmexit.interruption_info
    if info & 0xFF != Vector.PF or info >> 8 & 7 != EventType.HARDWARE_EXCEPTION:
        return handle_exception_nmi(vcpu, vmexit)
    linear, error = vmexit.qualification, vmexit.interruption_error
    got = _shadow(vcpu).fault(linear, error)
    if isinstance(got, Denied):
        fault = GuestFault(Vector.PF, got.error, linear)
        return inject_during(vcpu, VectoredEvent.of(vmexit), fault)
    if isinstance(got, Found):
        return _write_unprotected(vcpu, vmexit, got)
    if isinstance(got, Unbacked):
        vcpu.vmcs.native.mov_size = 0  # it is a table that lies there, not what is moved
        return _as_violation(vcpu, vmexit, got.gpa, 0)
    if got:
        return _as_violation(vcpu, vmexit, got, _TRANSLATION)
    if vmexit.idt_vectoring_info & _VALID:
        deliver_again(vcpu, vmexit)
    return Outcome.RESUME


def _as_violation(vcpu: "Vcpu", vmexit: Exit, gpa: int, kind: int) -> Outcome:
    """What an EPT violation would tell; there is no memory there."""
    error = vmexit.interruption_error
    access = 4 if error & _FETCH else 2 if error & _WRITE else 1
    vmexit.show_access(vmexit.qualification, gpa, access | _LINEAR | kind)
    return handle_ept_violation(vcpu, vmexit)


def _write_unprotected(vcpu: "Vcpu", vmexit: Exit, found: Found) -> Outcome:
    """CR0.WP is 0: the instruction writes to a read-only page, and is carried out here."""
    if vmexit.idt_vectoring_info & _VALID:
        return _stop(vcpu, found, "an event was delivered to a read-only stack without CR0.WP")
    vmexit.show_access(vmexit.qualification, 0, 0)
    done = emulate(MachineView(vcpu, vmexit), 1)
    if done.status is Status.UNSUPPORTED:
        return _stop(vcpu, found, f"cannot emulate {done.text} on a read-only page without CR0.WP")
    if done.status is Status.FAULT:
        assert done.vector is not None
        inject_exception(vcpu, done.vector, done.error_code, done.address or 0)
    elif done.status is Status.DONE:
        vcpu.vmcs.skip(0)
    return Outcome.STOP if vcpu.is_stopped() else Outcome.RESUME


def _stop(vcpu: "Vcpu", found: Found, why: str) -> Outcome:
    vcpu.stop(StopReason.UNHANDLED, f"{why}: guest-physical {found.gpa:#x}")
    return Outcome.STOP


def handle_control_registers(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """CR3 is the hypervisor's; what changes CR0 or CR4 may change what the tables mean."""
    q = vmexit.qualification
    number, kind, register = q & 15, q >> 4 & 3, q >> 8 & 15
    if number == 3 and kind == _FROM:
        vcpu.set_register(register, vcpu.regs.cr3, 8 if vcpu.code_bits() == 64 else 4)
        return Outcome.SKIP
    if number != 8:
        _shadow(vcpu).reload()
    if number != 3 or kind != _TO:
        return handle_cr_access(vcpu, vmexit)
    if _load_cr3(vcpu, vcpu.regs[register] & vcpu.natural_mask()):
        return Outcome.SKIP
    inject_exception(vcpu, Vector.GP, 0)
    return Outcome.RESUME


def _load_cr3(vcpu: "Vcpu", value: int) -> bool:
    """Manual, MOV to CR3: bit 63 with PCIDs; reserved bits; PAE's PDPTEs."""
    cr0, cr4, is_long = vcpu.regs.cr0, vcpu.regs.cr4, vcpu.regs.efer & _LMA
    if cr4 & _PCIDE:
        value &= ~_KEEP
    if is_long and value >> vcpu.cpuid.model.physical_bits:
        return False
    if cr0 & _PG and cr4 & _PAE and not is_long and not load_pdptes(vcpu, value):
        return False
    vcpu.regs.cr3 = value if is_long else value & 0xFFFF_FFFF
    return True


def handle_invlpg(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """One address of the current address space."""
    _shadow(vcpu).invalidate(vmexit.qualification)
    return Outcome.SKIP


def handle_invpcid(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """No PCID is in use: what is named beyond the current address space is all compared."""
    regs, info = vcpu.regs, vmexit.instruction_info
    kind = regs[info >> 28 & 15] & vcpu.natural_mask()
    raw = vcpu.pcpu.read(vcpu.vmcs, _operand(vcpu, vmexit), 16)
    if isinstance(raw, Fault):
        inject_exception(vcpu, raw.vector or Vector.GP, raw.error_code, raw.address)
        return Outcome.RESUME
    pcid, linear = int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little")
    unusable = kind < 2 and pcid and not regs.cr4 & _PCIDE
    width = vcpu.cpuid.model.linear_bits
    if kind > 3 or pcid >> 12 or unusable or (kind == 0 and not is_canonical(linear, width)):
        inject_exception(vcpu, Vector.GP, 0)
        return Outcome.RESUME
    if kind == 0 and pcid == regs.cr3 & 0xFFF:
        _shadow(vcpu).invalidate(linear)
    else:
        _shadow(vcpu).reload()
    return Outcome.SKIP


def _operand(vcpu: "Vcpu", vmexit: Exit) -> int:
    """Manual: "Format of the VM-Exit Instruction-Information Field as Used for INVPCID"."""
    info, linear = vmexit.instruction_info, vmexit.qualification
    if not info >> 22 & 1:
        linear += vcpu.regs[info >> 18 & 15] << (info & 3)
    if not info >> 27 & 1:
        linear += vcpu.regs[info >> 23 & 15]
    linear &= (0xFFFF, 0xFFFF_FFFF, (1 << 64) - 1)[min(info >> 7 & 7, 2)]
    segment = info >> 15 & 7
    if vcpu.code_bits() != 64 or segment >= 4:
        linear += vcpu.vmcs[_SEGMENT_BASES[min(segment, 5)]]
    return linear & vcpu.natural_mask()


HANDLERS: Final = {
    R.EXCEPTION_NMI: handle_exception,
    R.CR_ACCESS: handle_control_registers,
    R.INVLPG: handle_invlpg,
    R.INVPCID: handle_invpcid,
}
