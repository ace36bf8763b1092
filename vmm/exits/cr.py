"""Control-register accesses to bits that the hypervisor owns: mode switches, CR4 features, CR8."""

from typing import TYPE_CHECKING, Final

from hwmodel.arch.registers import Cr0, Cr4
from hwmodel.arch.vmcs import Field
from hwmodel.vmx.exit import Exit
from vmm.exits.observed import handle_observed
from vmm.inject import inject_exception
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_GP: Final = 13
_TO, _FROM, _CLTS, _LMSW = 0, 1, 2, 3
_PG, _PE, _WP, _ET, _TS = int(Cr0.of(pg=1)), 1, int(Cr0.of(wp=1)), int(Cr0.of(et=1)), 8
_CD, _NW = int(Cr0.of(cd=1)), int(Cr0.of(nw=1))
_PAE, _LA57, _PCIDE = int(Cr4.of(pae=1)), int(Cr4.of(la57=1)), int(Cr4.of(pcide=1))
_CR0_RELOADS_PDPTES: Final = int(Cr0.of(pg=1, cd=1, nw=1))
_CR4_RELOADS_PDPTES: Final = int(Cr4.of(pae=1, pge=1, pse=1, smep=1))
_PCID: Final = 0xFFF
_LME, _LMA = 1 << 8, 1 << 10
_CS_L: Final = 1 << 13
_PDPTE_RESERVED: Final = 0x1E6  # and the address bits from MAXPHYADDR on

CR0_HOST_OWNED: Final = int(Cr0.of(pe=1, pg=1, cd=1, nw=1, ne=1))
CR4_GUEST_OWNED: Final = int(Cr4.of(tsd=1, de=1, pce=1, osfxsr=1, osxmmexcpt=1, fsgsbase=1))


def handle_cr_access(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Decode the qualification ("Exit Qualification for Control-Register Accesses")."""
    q = vmexit.qualification
    number, kind, register = q & 15, q >> 4 & 3, q >> 8 & 15
    if number == 3 and kind in (_TO, _FROM):
        return handle_observed(vcpu, vmexit)
    if kind == _LMSW:
        source = q >> 16 & 0xF
        ok = write_cr0(vcpu, vcpu.guest_cr0() & ~0xE | source | vcpu.guest_cr0() & _PE)
    elif kind == _CLTS:
        ok = write_cr0(vcpu, vcpu.guest_cr0() & ~_TS)
    elif kind == _FROM:
        vcpu.set_register(register, vcpu.lapic.cr8, 8)
        ok = True
    else:
        ok = _WRITERS[number](vcpu, vcpu.regs[register] & vcpu.natural_mask())
    if ok:
        return Outcome.SKIP
    if not vcpu.has_event():
        inject_exception(vcpu, _GP, 0)
    return Outcome.RESUME


def write_cr0(vcpu: "Vcpu", value: int) -> bool:
    """Change CR0; turning paging on or off enters and leaves long mode as EFER.LME says."""
    value |= _ET
    old, efer = vcpu.guest_cr0(), vcpu.regs.efer
    pages = bool(value & _PG)
    if not _is_valid_cr0(vcpu, value) or (pages and not old & _PG and not _may_page(vcpu, efer)):
        return False
    reloads = pages and not efer & _LME and (value ^ old) & _CR0_RELOADS_PDPTES
    if reloads and vcpu.regs.cr4 & _PAE and not load_pdptes(vcpu, vcpu.regs.cr3):
        return False
    if (value ^ old) & _PG:
        vcpu.regs.efer = efer | _LMA if pages and efer & _LME else efer & ~_LMA
    vcpu.set_cr0(value)
    return True


def _is_valid_cr0(vcpu: "Vcpu", value: int) -> bool:
    """Manual, MOV to CR: upper half; PG without PE; NW without CD; PG cleared in 64-bit code or
    with PCIDs.
    """
    if value >> 32 or value & (_PG | _PE) == _PG or value & (_NW | _CD) == _NW:
        return False
    if not value & _PG and vcpu.regs.cr4 & _PCIDE:
        return False
    return bool(value & _PG) or vcpu.code_bits() != 64


def _may_page(vcpu: "Vcpu", efer: int) -> bool:
    """Manual: CR0.PG with LME needs PAE and a CS that is not a 64-bit one."""
    if not efer & _LME:
        return not vcpu.regs.cr4 & _PCIDE
    return bool(vcpu.regs.cr4 & _PAE) and not vcpu.vmcs[Field.GUEST_CS_AR_BYTES] & _CS_L


def _set_cr4(vcpu: "Vcpu", value: int) -> bool:
    """Change CR4: only bits that the CPU model has, and none that long mode forbids."""
    old, long_mode = vcpu.guest_cr4(), vcpu.regs.efer & _LMA
    if value & ~int(vcpu.cr4_bits):
        return False
    if long_mode and (not value & _PAE or (value ^ old) & _LA57):
        return False
    if value & ~old & _PCIDE and (not long_mode or vcpu.regs.cr3 & _PCID):
        return False
    pae_paging = vcpu.regs.cr0 & _PG and value & _PAE and not long_mode
    if pae_paging and (value ^ old) & _CR4_RELOADS_PDPTES and not load_pdptes(vcpu, vcpu.regs.cr3):
        return False
    vcpu.set_cr4(value)  # the entry sees what paging depends on, and invalidates
    return True


def _set_cr8(vcpu: "Vcpu", value: int) -> bool:
    if value >> 4:
        return False
    vcpu.lapic.cr8 = value
    vcpu.look_for_events = True
    return True


def load_pdptes(vcpu: "Vcpu", cr3: int) -> bool:
    """Load the four PDPTEs of PAE paging; a reserved bit in a present one refuses them."""
    at = vcpu.memory.hpa(cr3 & 0xFFFF_FFE0, 32)
    if at is None:
        entries = [(1 << 64) - 1] * 4
    else:
        raw = vcpu.memory.ram.view[at : at + 32]
        entries = [int.from_bytes(raw[n : n + 8], "little") for n in range(0, 32, 8)]
    reserved = _PDPTE_RESERVED | -(1 << vcpu.cpuid.model.physical_bits)
    if any(entry & 1 and entry & reserved for entry in entries):
        return False
    fields = (Field.GUEST_PDPTR0, Field.GUEST_PDPTR1, Field.GUEST_PDPTR2, Field.GUEST_PDPTR3)
    for field, entry in zip(fields, entries, strict=True):
        vcpu.vmcs[field] = entry
    return True


_WRITERS: Final = {0: write_cr0, 4: _set_cr4, 8: _set_cr8}
