"""The checks on guest control registers, MSRs, RIP, RFLAGS, events and PDPTEs, one function each.

"Checks on Guest Control Registers, Debug Registers, and MSRs", "Checks on Guest RIP, RFLAGS, and
SSP", "Checks on Guest Non-Register State", "Checks on Guest Page-Directory-Pointer-Table Entries".
The C twin is cext/check_guest.c.
"""

from hwmodel.arch.events import ActivityState, EventType, PendingDebug, Vector
from hwmodel.arch.registers import Cr0
from hwmodel.arch.vmcs import Field
from hwmodel.vmx.capabilities import CR0_FIXED0, CR0_FIXED1, REVISION
from hwmodel.vmx.entry_view import EntryView, is_pat

_FREE_WITH_UNRESTRICTED = Cr0.of(pe=1, pg=1)
_RFLAGS_RESERVED = ~0x3F_FFFF & (1 << 64) - 1 | 1 << 15 | 1 << 5 | 1 << 3
_PDPTES = (Field.GUEST_PDPTR0, Field.GUEST_PDPTR1, Field.GUEST_PDPTR2, Field.GUEST_PDPTR3)
_PDPTE_RESERVED = 0x1E6
_NO_LINK = (1 << 64) - 1
_BTF = 2


def cr0_fixed(v: EntryView) -> bool:
    """CR0 has the bits that VMX operation fixes; PE and PG are free in an unrestricted guest."""
    fixed = CR0_FIXED0 & ~_FREE_WITH_UNRESTRICTED if v.unrestricted else CR0_FIXED0
    return not fixed & ~v.cr0 and not v.cr0 & ~CR0_FIXED1


def cr0_paging_needs_protection(v: EntryView) -> bool:
    """CR0.PG needs CR0.PE."""
    return v.cr0.pe or not v.cr0.pg


def cr4_fixed(v: EntryView) -> bool:
    """CR4 has the bits that VMX operation fixes, and none that the processor has not."""
    return not v.caps.cr4_fixed0 & ~v.cr4 and not v.cr4 & ~v.caps.cr4_fixed1


def debugctl_reserved(v: EntryView) -> bool:
    """IA32_DEBUGCTL, if loaded, has no reserved bit."""
    return (
        not v.entry.load_debug_controls or not v[Field.GUEST_IA32_DEBUGCTL] & ~v.caps.debugctl_bits
    )


def ia32e_needs_paging(v: EntryView) -> bool:
    """An IA-32e mode guest has CR0.PG and CR4.PAE."""
    return not v.entry.ia32e_mode_guest or (v.cr0.pg and v.cr4.pae)


def pcid_needs_ia32e(v: EntryView) -> bool:
    """CR4.PCIDE needs an IA-32e mode guest."""
    return v.entry.ia32e_mode_guest or not v.cr4.pcide


def cr3_width(v: EntryView) -> bool:
    """CR3 lies within the physical-address width."""
    return v[Field.GUEST_CR3] >> v.caps.physical_bits == 0


def dr7_upper_half(v: EntryView) -> bool:
    """DR7, if loaded, has 32 bits."""
    return not v.entry.load_debug_controls or v[Field.GUEST_DR7] >> 32 == 0


def guest_sysenter(v: EntryView) -> bool:
    """IA32_SYSENTER_ESP and IA32_SYSENTER_EIP are canonical."""
    return all(v.is_canonical(v[f]) for f in (Field.GUEST_SYSENTER_ESP, Field.GUEST_SYSENTER_EIP))


def guest_pat(v: EntryView) -> bool:
    """IA32_PAT, if loaded, holds memory types."""
    return not v.entry.load_ia32_pat or is_pat(v[Field.GUEST_IA32_PAT])


def efer_reserved(v: EntryView) -> bool:
    """IA32_EFER, if loaded, has no reserved bit."""
    return not v.entry.load_ia32_efer or not v.efer & ~v.caps.efer_bits


def efer_lma(v: EntryView) -> bool:
    """IA32_EFER.LMA, if loaded, says whether it is an IA-32e mode guest."""
    return not v.entry.load_ia32_efer or v.efer.lma == v.entry.ia32e_mode_guest


def efer_lme(v: EntryView) -> bool:
    """With paging, LME equals LMA in an IA32_EFER that is loaded."""
    applies = v.entry.load_ia32_efer and v.cr0.pg
    return not applies or v.efer.lme == v.efer.lma


def rip_width(v: EntryView) -> bool:
    """RIP has 32 bits outside 64-bit code, and is canonical in it."""
    rip = v[Field.GUEST_RIP]
    if v.entry.ia32e_mode_guest and v.rights("CS").l:
        return rip >> v.caps.linear_bits in (0, (1 << 64 - v.caps.linear_bits) - 1)
    return rip >> 32 == 0


def rflags_reserved(v: EntryView) -> bool:
    """Reserved bits of RFLAGS are 0, bit 1 is 1."""
    return not v.rflags & _RFLAGS_RESERVED and v.rflags.always_1


def rflags_vm(v: EntryView) -> bool:
    """Virtual-8086 mode needs protection, and is none of IA-32e mode."""
    return not v.rflags.vm or (not v.entry.ia32e_mode_guest and v.cr0.pe)


def rflags_if_for_interrupt(v: EntryView) -> bool:
    """An external interrupt is injected with RFLAGS.IF = 1."""
    return v.injected_type != EventType.EXTERNAL_INTERRUPT or v.rflags.if_


def activity_exists(v: EntryView) -> bool:
    """The activity state is one that IA32_VMX_MISC reports."""
    misc, activity = v.caps.misc, v[Field.GUEST_ACTIVITY_STATE]
    known = (True, misc.activity_hlt, misc.activity_shutdown, misc.activity_wait_for_sipi)
    return activity < len(known) and known[activity]


def halted_at_cpl_0(v: EntryView) -> bool:
    """Only ring 0 is halted."""
    return v[Field.GUEST_ACTIVITY_STATE] != ActivityState.HLT or v.rights("SS").dpl == 0


def active_in_shadow(v: EntryView) -> bool:
    """Blocking by STI or MOV SS is of an active processor."""
    shadow = v.blocking.blocking_by_sti or v.blocking.blocking_by_mov_ss
    return not shadow or v[Field.GUEST_ACTIVITY_STATE] == ActivityState.ACTIVE


def activity_takes_event(v: EntryView) -> bool:
    """An event is injected only into an activity state that such an event ends."""
    activity, info = v[Field.GUEST_ACTIVITY_STATE], v.injects
    if info is None or activity == ActivityState.ACTIVE:
        return True
    kind, vector = v.injected_type, info & 0xFF
    exception = kind == EventType.HARDWARE_EXCEPTION
    if activity == ActivityState.HLT:
        wakes = kind in (EventType.EXTERNAL_INTERRUPT, EventType.NMI, EventType.OTHER)
        return wakes or (exception and vector in (Vector.DB, Vector.MC))
    if activity == ActivityState.SHUTDOWN:
        return kind == EventType.NMI or (exception and vector == Vector.MC)
    return False


def blocking_reserved(v: EntryView) -> bool:
    """Bits 31:5 of the interruptibility state are 0."""
    return v.blocking >> 5 == 0


def blocking_sti_and_mov_ss(v: EntryView) -> bool:
    """Blocking is by STI or by MOV SS, not by both."""
    return not (v.blocking.blocking_by_sti and v.blocking.blocking_by_mov_ss)


def blocking_sti_needs_if(v: EntryView) -> bool:
    """Blocking by STI comes with RFLAGS.IF = 1."""
    return v.rflags.if_ or not v.blocking.blocking_by_sti


def blocking_excludes_interrupt(v: EntryView) -> bool:
    """An external interrupt is not injected into a shadow of STI or MOV SS."""
    shadow = v.blocking.blocking_by_sti or v.blocking.blocking_by_mov_ss
    return not shadow or v.injected_type != EventType.EXTERNAL_INTERRUPT


def blocking_mov_ss_excludes_nmi(v: EntryView) -> bool:
    """An NMI is not injected into a shadow of MOV SS."""
    return not v.blocking.blocking_by_mov_ss or v.injected_type != EventType.NMI


def blocking_smi(v: EntryView) -> bool:
    """Outside SMM nothing is blocked by SMI."""
    return not v.blocking.blocking_by_smi


def blocking_sti_excludes_nmi(v: EntryView) -> bool:
    """An NMI is not injected into a shadow of STI."""
    return not v.blocking.blocking_by_sti or v.injected_type != EventType.NMI


def blocking_nmi_excludes_nmi(v: EntryView) -> bool:
    """With virtual NMIs, none is injected while NMIs are blocked."""
    applies = v.pin.virtual_nmis and v.injected_type == EventType.NMI
    return not applies or not v.blocking.blocking_by_nmi


def blocking_enclave(v: EntryView) -> bool:
    """No enclave was interrupted: this processor has none."""
    return not v.blocking.enclave


def pending_debug_reserved(v: EntryView) -> bool:
    """Reserved bits of the pending debug exceptions are 0."""
    return not v[Field.GUEST_PENDING_DBG_EXCEPTIONS] & ~v.caps.pending_debug_bits


def pending_single_step(v: EntryView) -> bool:
    """In a shadow, and halted, BS is pending just if RFLAGS.TF = 1 and IA32_DEBUGCTL.BTF = 0."""
    blocked = v.blocking.blocking_by_sti or v.blocking.blocking_by_mov_ss
    if not blocked and v[Field.GUEST_ACTIVITY_STATE] != ActivityState.HLT:
        return True
    steps = v.rflags.tf and not v[Field.GUEST_IA32_DEBUGCTL] & _BTF
    return PendingDebug(v[Field.GUEST_PENDING_DBG_EXCEPTIONS]).single_step == steps


def link_pointer_address(v: EntryView) -> bool:
    """A VMCS link pointer that is used is a page within the physical-address width."""
    link = v[Field.VMCS_LINK_POINTER]
    return link == _NO_LINK or v.is_address(link, aligned=12)


def link_pointer_revision(v: EntryView) -> bool:
    """It leads to a VMCS of this revision, a shadow one if VMCS shadowing is on."""
    link = v[Field.VMCS_LINK_POINTER]
    if link == _NO_LINK or not v.is_address(link, aligned=12):
        return True
    shadow = v.secondary.vmcs_shadowing << 31
    return v.read(link, 4) == REVISION | shadow


def link_pointer_is_another(v: EntryView) -> bool:
    """It does not lead to the current VMCS."""
    return v[Field.VMCS_LINK_POINTER] == _NO_LINK or v[Field.VMCS_LINK_POINTER] != v.current


def pdptes_reserved(v: EntryView) -> bool:
    """With PAE paging a present PDPTE has no reserved bit."""
    pae = v.cr0.pg and v.cr4.pae and not v.entry.ia32e_mode_guest
    if not pae:
        return True
    beyond = (1 << 64) - (1 << v.caps.physical_bits)
    if v.secondary.enable_ept:
        entries = [v[field] for field in _PDPTES]
    else:
        table = v[Field.GUEST_CR3] & 0xFFFF_FFE0
        entries = [v.read(table + 8 * n, 8) for n in range(4)]
    return not any(entry & 1 and entry & (_PDPTE_RESERVED | beyond) for entry in entries)


CONTROL_REGISTER_CHECKS = (
    cr0_fixed, cr0_paging_needs_protection, cr4_fixed, debugctl_reserved, ia32e_needs_paging,
    pcid_needs_ia32e, cr3_width, dr7_upper_half, guest_sysenter, guest_pat, efer_reserved, efer_lma,
    efer_lme,
)  # fmt: skip
EVENT_CHECKS = (
    rip_width, rflags_reserved, rflags_vm, rflags_if_for_interrupt, activity_exists,
    halted_at_cpl_0, active_in_shadow, activity_takes_event, blocking_reserved,
    blocking_sti_and_mov_ss, blocking_sti_needs_if, blocking_excludes_interrupt,
    blocking_mov_ss_excludes_nmi, blocking_smi, blocking_sti_excludes_nmi,
    blocking_nmi_excludes_nmi, blocking_enclave, pending_debug_reserved, pending_single_step,
    link_pointer_address, link_pointer_revision, link_pointer_is_another, pdptes_reserved,
)  # fmt: skip
