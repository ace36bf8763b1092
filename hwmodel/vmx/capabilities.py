"""What this processor's VT-x can do: one table of what is implemented, and the MSRs that say so.

A control is in IMPLEMENTED when the engine honours it; every other one is reported as not allowed,
and an entry with it fails. Layouts are in "VMX Capability Reporting Facility". A CPU model may
allow less (`allows`), never more.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Final, Self

from hwmodel.arch.controls import (
    Allowed,
    EntryControls,
    ExitControls,
    PinBased,
    Primary,
    Secondary,
    SecondaryExit,
    Tertiary,
    VmFunction,
)
from hwmodel.arch.model import CpuModel
from hwmodel.arch.msr import Msr
from hwmodel.arch.registers import Cr0, Cr4, Efer
from hwmodel.arch.vmcs import Field
from hwmodel.arch.vmx_model import WORDS
from hwmodel.arch.vmx_msrs import Basic, EptVpid, Misc
from hwmodel.arch.word import Word

REVISION: Final = 0x52_31_00_01
"""The VMCS revision identifier: bit 31 is 0."""
REGION_BYTES: Final = 4096

IMPLEMENTED: Final[dict[type[Word], Word]] = {
    PinBased: PinBased.of(
        external_interrupt_exiting=1,
        nmi_exiting=1,
        virtual_nmis=1,
        activate_vmx_preemption_timer=1,
        process_posted_interrupts=1,
    ),
    Primary: Primary.of(
        interrupt_window_exiting=1,
        use_tsc_offsetting=1,
        hlt_exiting=1,
        invlpg_exiting=1,
        mwait_exiting=1,
        rdpmc_exiting=1,
        rdtsc_exiting=1,
        cr3_load_exiting=1,
        cr3_store_exiting=1,
        cr8_load_exiting=1,
        cr8_store_exiting=1,
        use_tpr_shadow=1,
        nmi_window_exiting=1,
        mov_dr_exiting=1,
        uncond_io_exiting=1,
        use_io_bitmaps=1,
        monitor_trap_flag=1,
        use_msr_bitmaps=1,
        monitor_exiting=1,
        pause_exiting=1,
        activate_secondary_controls=1,
    ),
    Secondary: Secondary.of(
        virtualize_apic_accesses=1,
        enable_ept=1,
        descriptor_table_exiting=1,
        enable_rdtscp=1,
        virtualize_x2apic_mode=1,
        enable_vpid=1,
        wbinvd_exiting=1,
        unrestricted_guest=1,
        apic_register_virtualization=1,
        virtual_interrupt_delivery=1,
        pause_loop_exiting=1,
        rdrand_exiting=1,
        enable_invpcid=1,
        enable_vm_functions=1,
        rdseed_exiting=1,
        enable_pml=1,
        ept_violation_ve=1,
        mode_based_execute_control_for_ept=1,
        use_tsc_scaling=1,
    ),
    Tertiary: Tertiary(0),
    ExitControls: ExitControls.of(
        save_debug_controls=1,
        host_address_space_size=1,
        acknowledge_interrupt_on_exit=1,
        save_ia32_pat=1,
        load_ia32_pat=1,
        save_ia32_efer=1,
        load_ia32_efer=1,
        save_vmx_preemption_timer_value=1,
    ),
    SecondaryExit: SecondaryExit(0),
    EntryControls: EntryControls.of(
        load_debug_controls=1, ia32e_mode_guest=1, load_ia32_pat=1, load_ia32_efer=1
    ),
    VmFunction: VmFunction.of(eptp_switching=1),
    EptVpid: EptVpid.of(
        execute_only=1, walk_length_4=1, walk_length_5=1, memory_type_uc=1, memory_type_wb=1,
        pages_2m=1, pages_1g=1, invept=1, accessed_dirty=1, violation_information=1,
        invept_single=1, invept_all=1, invvpid=1, invvpid_address=1, invvpid_single=1,
        invvpid_all=1, invvpid_retaining_globals=1,
    ),
}  # fmt: skip

CR0_FIXED0: Final = Cr0.of(pe=1, ne=1, pg=1)
CR0_FIXED1: Final = Cr0(0xFFFF_FFFF)
CR4_FIXED0: Final = Cr4.of(vmxe=1)
CR4_FIXED1: Final = Cr4.of(
    vme=1, pvi=1, tsd=1, de=1, pse=1, pae=1, mce=1, pge=1, pce=1, osfxsr=1, osxmmexcpt=1, umip=1,
    la57=1, vmxe=1, fsgsbase=1, pcide=1, smep=1, smap=1, pke=1, pks=1,
)  # fmt: skip
EFER_BITS: Final = Efer.of(sce=1, lme=1, lma=1, nxe=1)
DEBUGCTL_BITS: Final = 0x1 | 0x2
"""IA32_DEBUGCTL: LBR and BTF (kept, without effect)."""


@cache
def _allowed(word: type[Word], supported: Word, true: bool) -> Allowed[Word]:
    return Allowed.of(word, supported, true=true)


@cache
def _misc() -> Misc:
    return Misc.of(
        exit_stores_lma=1,
        activity_hlt=1,
        cr3_targets=4,
        max_msr_list=0,
        vmwrite_any_field=1,
        zero_length_injection=0,
    )


@cache
def _basic() -> Basic:
    return Basic.of(
        revision=REVISION, region_bytes=REGION_BYTES, memory_type=6,
        ins_outs_information=1, true_controls=1,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one processor allows. Address widths in bits; everything else as its MSR has it."""

    supported: dict[type[Word], Word]
    physical_bits: int = 46
    linear_bits: int = 48
    cr4_fixed1: int = int(CR4_FIXED1)
    efer_bits: int = int(EFER_BITS)
    debugctl_bits: int = DEBUGCTL_BITS
    pending_debug_bits: int = 0x500F
    """Bits of the pending debug exceptions that may be set: B0 to B3, enabled breakpoint, BS."""
    ept_accessed_dirty: bool = True
    """Whether EPT has accessed and dirty flags."""
    root_is_long_mode: bool = True
    """Whether VM entries come from IA-32e mode, as they do from every 64-bit hypervisor."""

    @classmethod
    def implemented(cls) -> Self:
        """Everything that the engine does."""
        return cls(dict(IMPLEMENTED))

    @classmethod
    def of_model(cls, model: CpuModel) -> Self:
        """What a CPU model allows. Raises ModelError for a control that the engine has not."""
        allowed = model.vmx.allowed()
        for one in model.vmx.names:
            if not WORDS[one.word].of(**{one.name: 1}) & IMPLEMENTED[WORDS[one.word]]:
                raise one.refused("is allowed but not implemented; leave it out")
        return cls(allowed, model.physical_bits, model.linear_bits)

    def missing(self, words: Iterable[Word]) -> list[str]:
        """Return the names of the controls in `words` that are not allowed."""
        return [
            name
            for word in words
            for name, part in type(word).layout.items()
            if int(word) & part.mask & ~int(self.supported[type(word)])
        ]

    def allowed(self, word: type[Word], *, true: bool = True) -> Allowed[Word]:
        """The settings that are allowed for one control word."""
        return _allowed(word, self.supported[word], true)  # type: ignore[arg-type]

    def without(self, word: type[Word], **flags: int) -> Self:
        """The same processor with these controls not allowed."""
        less = word(int(self.supported[word]) & ~int(word.of(**flags)))
        return replace(self, supported=self.supported | {word: less})

    @property
    def misc(self) -> Misc:
        """IA32_VMX_MISC."""
        return _misc()

    @property
    def basic(self) -> Basic:
        """IA32_VMX_BASIC."""
        return _basic()

    @property
    def ept_vpid(self) -> EptVpid:
        """IA32_VMX_EPT_VPID_CAP."""
        offered = EptVpid(self.supported.get(EptVpid, IMPLEMENTED[EptVpid]))
        return offered.replace(accessed_dirty=self.ept_accessed_dirty and offered.accessed_dirty)

    @property
    def vm_functions(self) -> VmFunction:
        """IA32_VMX_VMFUNC."""
        return VmFunction(int(self.supported[VmFunction]))

    @property
    def cr4_fixed0(self) -> int:
        """Bits of CR4 that are 1 in VMX operation."""
        return int(CR4_FIXED0)

    def msrs(self) -> dict[Msr, int]:
        """Every VMX capability MSR and its value."""
        highest = max(field >> 1 & 0x1FF for field in Field)
        values = {
            Msr.IA32_VMX_BASIC: int(self.basic),
            Msr.IA32_VMX_MISC: int(self.misc),
            Msr.IA32_VMX_CR0_FIXED0: int(CR0_FIXED0),
            Msr.IA32_VMX_CR0_FIXED1: int(CR0_FIXED1),
            Msr.IA32_VMX_CR4_FIXED0: self.cr4_fixed0,
            Msr.IA32_VMX_CR4_FIXED1: self.cr4_fixed1,
            Msr.IA32_VMX_VMCS_ENUM: highest << 1,
            Msr.IA32_VMX_EPT_VPID_CAP: int(self.ept_vpid),
            Msr.IA32_VMX_VMFUNC: int(self.vm_functions),
            Msr.IA32_VMX_PROCBASED_CTLS2: self.allowed(Secondary).msr(),
            Msr.IA32_VMX_PROCBASED_CTLS3: int(self.supported[Tertiary]),
            Msr.IA32_VMX_EXIT_CTLS2: int(self.supported[SecondaryExit]),
        }
        for word, plain, true in _PAIRS:
            values[plain] = self.allowed(word, true=False).msr()
            values[true] = self.allowed(word).msr()
        return values


_PAIRS: Final = (
    (PinBased, Msr.IA32_VMX_PINBASED_CTLS, Msr.IA32_VMX_TRUE_PINBASED_CTLS),
    (Primary, Msr.IA32_VMX_PROCBASED_CTLS, Msr.IA32_VMX_TRUE_PROCBASED_CTLS),
    (ExitControls, Msr.IA32_VMX_EXIT_CTLS, Msr.IA32_VMX_TRUE_EXIT_CTLS),
    (EntryControls, Msr.IA32_VMX_ENTRY_CTLS, Msr.IA32_VMX_TRUE_ENTRY_CTLS),
)  # fmt: skip
