"""RDMSR and WRMSR that exit: everything but the bases and entry points that the guest owns."""

from typing import TYPE_CHECKING, Final

from hwmodel.arch.msr import Msr
from hwmodel.arch.speculation import arch_capabilities, spec_ctrl_mask
from hwmodel.arch.vmcs import Field
from hwmodel.vmx.exit import Exit
from vmm.inject import inject_exception
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_GP: Final = 13
_LOW: Final = 0xFFFF_FFFF
_MASK64: Final = (1 << 64) - 1
_LMA, _LME = 1 << 10, 1 << 8
_PG: Final = 1 << 31
_PAT_TYPES: Final = {0, 1, 4, 5, 6, 7}
_APIC: Final = frozenset({Msr.IA32_APICBASE, 0x6E0, *range(0x800, 0x900)})

_NEEDS: Final[dict[int, str]] = {
    Msr.IA32_TSC_DEADLINE: "tsc_deadline",
    Msr.IA32_TSC_ADJUST: "tsc_adjust",
    Msr.IA32_SPEC_CTRL: "spec_ctrl",
    Msr.IA32_PRED_CMD: "spec_ctrl",
    Msr.IA32_ARCH_CAPABILITIES: "arch_capabilities",
}
_AMD_COUNTERS: Final = 4
_AMD: Final = frozenset(range(Msr.K7_EVNTSEL0, Msr.K7_PERFCTR0 + _AMD_COUNTERS))
"""Every AMD64 processor has these counters, no CPUID bit tells of them. Ours keep what is written
and count nothing."""
SPECULATION: Final = (Msr.IA32_SPEC_CTRL, Msr.IA32_PRED_CMD, Msr.IA32_ARCH_CAPABILITIES)
_IBPB: Final = 1  # the one command of IA32_PRED_CMD

# Registers that hold what was written, and what they hold at reset; writes must fit the mask.
_PLAIN: Final[dict[int, tuple[int, int]]] = {
    Msr.IA32_MISC_ENABLE: (1, (1 << 39) - 1),
    Msr.MTRR_DEF_TYPE: (0x806, 0xCFF),  # as firmware leaves it: on, write-back by default
    **dict.fromkeys(range(Msr.MTRR_PHYSBASE0, Msr.MTRR_PHYSBASE0 + 16), (0, (1 << 46) - 1)),
    Msr.MTRR_FIX64K_00000: (0, (1 << 64) - 1),
    Msr.MTRR_FIX16K_80000: (0, (1 << 64) - 1),
    Msr.MTRR_FIX16K_A0000: (0, (1 << 64) - 1),
    **dict.fromkeys(range(Msr.MTRR_FIX4K_C0000, Msr.MTRR_FIX4K_F8000 + 1), (0, (1 << 64) - 1)),
    **dict.fromkeys(_AMD, (0, (1 << 64) - 1)),
}
# Read-only, or written without effect.
_CONSTANT: Final[dict[int, int]] = {
    Msr.IA32_PLATFORM_ID: 0,
    Msr.IA32_UCODE_REV: 0x1_0000_0000,
    Msr.MTRRCAP: 0x508,  # eight variable ranges, fixed ranges, write-combining
    Msr.IA32_MCG_CAP: 0,
    Msr.IA32_MCG_STATUS: 0,
    Msr.IA32_DEBUGCTLMSR: 0,
}


def handle_msr_read(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """Answer in EDX:EAX, or #GP for an MSR that this processor has not."""
    value = _read(vcpu, vcpu.regs.rcx & _LOW)
    if value is None:
        return _refuse(vcpu, "read")
    vcpu.regs.rax, vcpu.regs.rdx = value & _LOW, value >> 32 & _LOW
    return Outcome.SKIP


def handle_msr_write(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """Take EDX:EAX, or #GP for an unknown MSR or a reserved bit."""
    regs = vcpu.regs
    value = (regs.rdx & _LOW) << 32 | regs.rax & _LOW
    return Outcome.SKIP if _write(vcpu, regs.rcx & _LOW, value) else _refuse(vcpu, "write")


def _refuse(vcpu: "Vcpu", what: str) -> Outcome:
    vcpu.note_unknown("msr", vcpu.regs.rcx & _LOW, what)
    inject_exception(vcpu, _GP, 0)
    return Outcome.RESUME


def _read(vcpu: "Vcpu", number: int) -> int | None:
    if number in _APIC:
        return vcpu.lapic.read_msr(number) if has_msr(vcpu, number) else None
    if number == Msr.IA32_TSC:
        return vcpu.shown_tsc()
    if number == Msr.EFER:
        return vcpu.regs.efer
    if number == Msr.IA32_CR_PAT:
        return vcpu.vmcs[Field.GUEST_IA32_PAT]
    if number == Msr.IA32_TSC_ADJUST:
        return vcpu.msrs.get(number, 0) if has_msr(vcpu, number) else None
    if number in SPECULATION:
        return read_speculation(vcpu, number) if has_msr(vcpu, number) else None
    if number in _PLAIN:
        return vcpu.msrs.get(number, _PLAIN[number][0]) if has_msr(vcpu, number) else None
    if number in _CONSTANT:
        return _CONSTANT[number]
    return vcpu.dialects.read_msr(vcpu, number)


def _write(vcpu: "Vcpu", number: int, value: int) -> bool:
    if number in _APIC:
        vcpu.look_for_events = True
        return has_msr(vcpu, number) and vcpu.lapic.write_msr(number, value)
    if number == Msr.IA32_TSC:
        return _move_tsc(vcpu, value - vcpu.tsc())
    if number == Msr.EFER:
        return _write_efer(vcpu, value)
    if number == Msr.IA32_CR_PAT:
        return _write_pat(vcpu, value)
    if number == Msr.IA32_TSC_ADJUST:
        return has_msr(vcpu, number) and _move_tsc(vcpu, value - vcpu.msrs.get(number, 0))
    if number in SPECULATION:
        return has_msr(vcpu, number) and write_speculation(vcpu, number, value)
    if number in _PLAIN:
        return has_msr(vcpu, number) and _write_plain(vcpu, number, value)
    if number in (Msr.IA32_UCODE_REV, Msr.IA32_DEBUGCTLMSR, Msr.IA32_UCODE_WRITE):
        return True
    return vcpu.dialects.write_msr(vcpu, number, value)


def has_msr(vcpu: "Vcpu", number: int) -> bool:
    """Whether CPUID tells of the feature, or the maker, that an MSR belongs to."""
    if number in _AMD:
        return vcpu.cpuid.model.vendor == "AuthenticAMD"
    feature = _NEEDS.get(number)
    return feature is None or feature in vcpu.cpuid.model.features


def _move_tsc(vcpu: "Vcpu", distance: int) -> bool:
    """Writing the TSC or IA32_TSC_ADJUST moves both ("Time-Stamp Counter Adjustment")."""
    vcpu.write_tsc(vcpu.tsc() + distance & _MASK64)
    if has_msr(vcpu, Msr.IA32_TSC_ADJUST):
        old = vcpu.msrs.get(Msr.IA32_TSC_ADJUST, 0)
        vcpu.msrs[Msr.IA32_TSC_ADJUST] = old + distance & _MASK64
    vcpu.look_for_events = True
    vcpu.board.reschedule()
    return True


def read_speculation(vcpu: "Vcpu", number: int) -> int | None:
    """Return one of SPECULATION; None: it cannot be read."""
    if number == Msr.IA32_ARCH_CAPABILITIES:
        return arch_capabilities(vcpu.cpuid.model.immunities)
    return vcpu.msrs.get(number, 0) if number == Msr.IA32_SPEC_CTRL else None


def write_speculation(vcpu: "Vcpu", number: int, value: int) -> bool:
    """Keep IA32_SPEC_CTRL; a barrier by IA32_PRED_CMD has nothing to hold back."""
    if number == Msr.IA32_SPEC_CTRL and not value & ~spec_ctrl_mask(vcpu.cpuid.model.features):
        vcpu.msrs[number] = value
        return True
    return number == Msr.IA32_PRED_CMD and not value & ~_IBPB


def _write_plain(vcpu: "Vcpu", number: int, value: int) -> bool:
    if value & ~_PLAIN[number][1]:
        return False
    vcpu.msrs[number] = value
    return True


def _write_efer(vcpu: "Vcpu", value: int) -> bool:
    """Manual: LMA is read-only, LME may not change while paging is on."""
    old = vcpu.regs.efer
    if value & ~int(vcpu.efer_bits) or (vcpu.regs.cr0 & _PG and (old ^ value) & _LME):
        return False
    vcpu.regs.efer = value & ~_LMA | old & _LMA
    return True


def _write_pat(vcpu: "Vcpu", value: int) -> bool:
    if any(value >> shift & 0xFF not in _PAT_TYPES for shift in range(0, 64, 8)):
        return False
    vcpu.vmcs[Field.GUEST_IA32_PAT] = value
    return True
