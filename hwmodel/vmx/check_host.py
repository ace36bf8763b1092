"""The checks on the host-state area, one function each, in the manual's order.

"Checks on Host Control Registers, MSRs, and SSP", "Checks on Host Segment and Descriptor-Table
Registers", "Checks Related to Address-Space Size". The C twin is cext/check_host.c.
"""

from typing import Final

from hwmodel.arch.registers import Cr4, Efer
from hwmodel.arch.vmcs import Field
from hwmodel.vmx.capabilities import CR0_FIXED0, CR0_FIXED1
from hwmodel.vmx.entry_view import EntryView, is_pat

_SELECTORS: Final = (
    Field.HOST_CS_SELECTOR, Field.HOST_SS_SELECTOR, Field.HOST_DS_SELECTOR, Field.HOST_ES_SELECTOR,
    Field.HOST_FS_SELECTOR, Field.HOST_GS_SELECTOR, Field.HOST_TR_SELECTOR,
)  # fmt: skip
_BASES: Final = (
    Field.HOST_FS_BASE, Field.HOST_GS_BASE, Field.HOST_GDTR_BASE, Field.HOST_IDTR_BASE,
    Field.HOST_TR_BASE,
)  # fmt: skip


def _is_wide(v: EntryView) -> bool:
    return v.exit.host_address_space_size


def host_cr0(v: EntryView) -> bool:
    """Host CR0 has the bits that VMX operation fixes."""
    cr0 = v[Field.HOST_CR0]
    return not CR0_FIXED0 & ~cr0 and not cr0 & ~CR0_FIXED1


def host_cr4(v: EntryView) -> bool:
    """Host CR4 has the bits that VMX operation fixes, and none that the processor has not."""
    cr4 = v[Field.HOST_CR4]
    return not v.caps.cr4_fixed0 & ~cr4 and not cr4 & ~v.caps.cr4_fixed1


def host_cr3(v: EntryView) -> bool:
    """Host CR3 lies within the physical-address width."""
    return v[Field.HOST_CR3] >> v.caps.physical_bits == 0


def host_sysenter(v: EntryView) -> bool:
    """Host IA32_SYSENTER_ESP and IA32_SYSENTER_EIP are canonical."""
    fields = Field.HOST_IA32_SYSENTER_ESP, Field.HOST_IA32_SYSENTER_EIP
    return all(v.is_canonical(v[f]) for f in fields)


def host_pat(v: EntryView) -> bool:
    """Host IA32_PAT, if loaded, holds memory types."""
    return not v.exit.load_ia32_pat or is_pat(v[Field.HOST_IA32_PAT])


def host_efer(v: EntryView) -> bool:
    """Host IA32_EFER, if loaded, has no reserved bit; LMA and LME are the address-space size."""
    if not v.exit.load_ia32_efer:
        return True
    efer = Efer(v[Field.HOST_IA32_EFER])
    return not efer & ~v.caps.efer_bits and efer.lma == efer.lme == _is_wide(v)


def host_selectors(v: EntryView) -> bool:
    """Host selectors have RPL 0 and refer to the GDT."""
    return not any(v[f] & 7 for f in _SELECTORS)


def host_cs(v: EntryView) -> bool:
    """Host CS is not null."""
    return v[Field.HOST_CS_SELECTOR] != 0


def host_tr(v: EntryView) -> bool:
    """Host TR is not null."""
    return v[Field.HOST_TR_SELECTOR] != 0


def host_ss(v: EntryView) -> bool:
    """Host SS is not null, where the host is not 64-bit."""
    return _is_wide(v) or v[Field.HOST_SS_SELECTOR] != 0


def host_bases(v: EntryView) -> bool:
    """Host FS, GS, GDTR, IDTR and TR bases are canonical."""
    return all(v.is_canonical(v[f]) for f in _BASES)


def host_size_of_root(v: EntryView) -> bool:
    """A hypervisor in IA-32e mode gets a 64-bit host back; another one gets no 64-bit anything."""
    if v.caps.root_is_long_mode:
        return _is_wide(v)
    return not _is_wide(v) and not v.entry.ia32e_mode_guest


def host_size_32(v: EntryView) -> bool:
    """A 32-bit host has no IA-32e guest, no PCIDs, and RIP below 4 GiB."""
    if _is_wide(v):
        return True
    narrow = v[Field.HOST_RIP] >> 32 == 0 and not Cr4(v[Field.HOST_CR4]).pcide
    return narrow and not v.entry.ia32e_mode_guest


def host_size_64(v: EntryView) -> bool:
    """A 64-bit host has CR4.PAE and a canonical RIP."""
    if not _is_wide(v):
        return True
    return Cr4(v[Field.HOST_CR4]).pae and v.is_canonical(v[Field.HOST_RIP])


HOST_CHECKS = (
    host_cr0, host_cr4, host_cr3, host_sysenter, host_pat, host_efer, host_selectors, host_cs,
    host_tr, host_ss, host_bases, host_size_of_root, host_size_32, host_size_64,
)  # fmt: skip
