"""Why an instruction or event exits: the control, mask or bitmap entry that says so.

One rule a reason, from the manual's "VMX Non-Root Operation": "Instructions That Cause VM Exits
Unconditionally", "... Conditionally", "Other Causes of VM Exits". A rule reads the VMCS and names
what it found there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hwmodel.arch.controls import PinBased, Primary, Secondary
from hwmodel.arch.exits import ExitReason as R
from hwmodel.arch.qualification import CrAccess, CrAccessType, Io
from hwmodel.arch.vmcs import Field
from hwmodel.arch.word import Word
from hwmodel.vmx.exit import Exit
from vmm.vcpu import Vcpu

_LOW: Final = 0xFFFF_FFFF
_MSR_HIGH: Final = 0xC000_0000


@dataclass(frozen=True, slots=True)
class Cause:
    """What asked for the exit; `setting` is where it says so, with its value, or empty."""

    text: str
    setting: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.setting})" if self.setting else self.text


def why(vcpu: Vcpu, vmexit: Exit) -> Cause:
    """Say what made `vmexit` an exit, by the VMCS as the exit left it."""
    if vmexit.is_entry_failure:
        return Cause("the VM entry failed; explain entry names the check")
    if vmexit.hardware_reason != vmexit.reason:  # the trap technique names what was trapped
        cause = _exception(vcpu, vmexit)
        vector = vmexit.interruption_info & 0xFF
        text = f"the guest's ring 0 is ring 1, where it raises vector {vector}; {cause.text}"
        return Cause(text, cause.setting)
    if vmexit.reason in _CONTROLS:
        return _control(vcpu, *_CONTROLS[vmexit.reason])
    rule = _RULES.get(vmexit.reason)
    if rule is not None:
        return rule(vcpu, vmexit)
    return Cause("it always exits in VMX non-root operation")


def _control(vcpu: Vcpu, field: Field, word: type[Word], bit: str) -> Cause:
    value = word(vcpu.vmcs[field])
    return Cause(
        f'the control "{_title(bit)}" is {int(getattr(value, bit))}', _setting(vcpu, field)
    )


def _title(bit: str) -> str:
    return bit.replace("_", " ").replace("uncond io", "unconditional I/O")


def _setting(vcpu: Vcpu, field: Field) -> str:
    return f"{field.name} = {vcpu.vmcs[field]:#x}"


def _byte(vcpu: Vcpu, hpa: int) -> int:
    ram = vcpu.memory.ram.view
    return int(ram[hpa]) if hpa < len(ram) else 0xFF


def _io(vcpu: Vcpu, vmexit: Exit) -> Cause:
    primary = Primary(vcpu.vmcs[Field.CPU_BASED_VM_EXEC_CONTROL])
    if not primary.use_io_bitmaps:
        return _control(vcpu, Field.CPU_BASED_VM_EXEC_CONTROL, Primary, "uncond_io_exiting")
    access = Io(vmexit.qualification)
    for port in range(access.port, access.port + access.bytes):
        if port > 0xFFFF:
            return Cause("the access goes beyond port 0xffff")
        name = "A" if port < 0x8000 else "B"
        base = vcpu.vmcs[Field[f"IO_BITMAP_{name}"]]
        if _byte(vcpu, base + (port & 0x7FFF) // 8) >> port % 8 & 1:
            bit = f"bit {port & 0x7FFF:#x} at host-physical {base:#x}"
            return Cause(f"port {port:#x} is set in I/O bitmap {name}", bit)
    return Cause("no bit of the I/O bitmaps is set now: they were changed since")


def _msr(vcpu: Vcpu, vmexit: Exit) -> Cause:
    primary = Primary(vcpu.vmcs[Field.CPU_BASED_VM_EXEC_CONTROL])
    number, writes = vcpu.regs.rcx & _LOW, vmexit.reason == R.MSR_WRITE
    verb = "writes" if writes else "reads"
    if not primary.use_msr_bitmaps:
        return _control(vcpu, Field.CPU_BASED_VM_EXEC_CONTROL, Primary, "use_msr_bitmaps")
    if number & ~0x1FFF not in (0, _MSR_HIGH):
        return Cause(f"MSR {number:#x} is in neither range of the MSR bitmaps: it always exits")
    base = vcpu.vmcs[Field.MSR_BITMAP] + writes * 0x800 + (number >= _MSR_HIGH) * 0x400
    if _byte(vcpu, base + (number & 0x1FFF) // 8) >> number % 8 & 1:
        bit = f"bit {number & 0x1FFF:#x} at host-physical {base:#x}"
        return Cause(f"{verb} of MSR {number:#x} are set in the MSR bitmaps", bit)
    return Cause("the bit of the MSR bitmaps is clear now: it was changed since")


def _cr(vcpu: Vcpu, vmexit: Exit) -> Cause:
    access = CrAccess(vmexit.qualification)
    loads = access.access_type is not CrAccessType.MOV_FROM_CR
    if access.cr in (3, 8):
        bit = f"cr{access.cr}_{'load' if loads else 'store'}_exiting"
        return _control(vcpu, Field.CPU_BASED_VM_EXEC_CONTROL, Primary, bit)
    mask = vcpu.vmcs[Field[f"CR{access.cr}_GUEST_HOST_MASK"]]
    shadow = vcpu.vmcs[Field[f"CR{access.cr}_READ_SHADOW"]]
    if access.access_type is CrAccessType.CLTS:
        return Cause("CR0.TS is the host's and set in the read shadow", f"mask {mask:#x}")
    is_lmsw = access.access_type is CrAccessType.LMSW
    value = access.lmsw_source if is_lmsw else vcpu.regs[access.register]
    differs = (value ^ shadow) & mask & (0xF if is_lmsw else -1)
    where = f"mask {mask:#x}, read shadow {shadow:#x}, value {value:#x}"
    return Cause(f"bits {differs:#x} of CR{access.cr} are the host's and would change", where)


def _exception(vcpu: Vcpu, vmexit: Exit) -> Cause:
    info = vmexit.interruption_info
    vector, kind = info & 0xFF, info >> 8 & 7
    if kind == 2:
        return _control(vcpu, Field.PIN_BASED_VM_EXEC_CONTROL, PinBased, "nmi_exiting")
    bitmap = vcpu.vmcs[Field.EXCEPTION_BITMAP]
    setting = _setting(vcpu, Field.EXCEPTION_BITMAP)
    if vector != 14:
        return Cause(f"bit {vector} of the exception bitmap is {bitmap >> vector & 1}", setting)
    mask = vcpu.vmcs[Field.PAGE_FAULT_ERROR_CODE_MASK]
    match = vcpu.vmcs[Field.PAGE_FAULT_ERROR_CODE_MATCH]
    code = vmexit.interruption_error
    equal = code & mask == match
    text = f"error code {code:#x} & mask {mask:#x} is {'' if equal else 'not '}match {match:#x}"
    return Cause(f"bit 14 of the exception bitmap is {bitmap >> 14 & 1}, and {text}", setting)


def _pause(vcpu: Vcpu, _vmexit: Exit) -> Cause:
    if Primary(vcpu.vmcs[Field.CPU_BASED_VM_EXEC_CONTROL]).pause_exiting:
        return _control(vcpu, Field.CPU_BASED_VM_EXEC_CONTROL, Primary, "pause_exiting")
    gap, window = vcpu.vmcs[Field.PLE_GAP], vcpu.vmcs[Field.PLE_WINDOW]
    return Cause(
        f"PAUSEs at most {gap} cycles apart went on for more than {window} cycles: a PAUSE loop",
        _setting(vcpu, Field.SECONDARY_VM_EXEC_CONTROL),
    )


def _ept(vcpu: Vcpu, vmexit: Exit) -> Cause:
    story = vcpu.pcpu.explain_gpa(vcpu.vmcs, vmexit.guest_physical)
    last = story.references[-1] if story.references else None
    pointer = _setting(vcpu, Field.EPT_POINTER)
    if last is None:
        return Cause("the guest-physical address is wider than the EPT translates", pointer)
    what = "misconfigured" if vmexit.reason == R.EPT_MISCONFIG else "does not allow the access"
    if vmexit.reason == R.EPT_VIOLATION and not last.entry & 7:
        what = "is not present"
    return Cause(f"the EPT entry of level {last.level} ({last.entry:#x}) {what}", pointer)


_PRIMARY, _SECONDARY, _PIN = (
    (Field.CPU_BASED_VM_EXEC_CONTROL, Primary),
    (Field.SECONDARY_VM_EXEC_CONTROL, Secondary),
    (Field.PIN_BASED_VM_EXEC_CONTROL, PinBased),
)
_CONTROLS: Final[dict[int, tuple[Field, type[Word], str]]] = {
    R.EXTERNAL_INTERRUPT: (*_PIN, "external_interrupt_exiting"),
    R.PREEMPTION_TIMER: (*_PIN, "activate_vmx_preemption_timer"),
    R.INTERRUPT_WINDOW: (*_PRIMARY, "interrupt_window_exiting"),
    R.NMI_WINDOW: (*_PRIMARY, "nmi_window_exiting"),
    R.HLT: (*_PRIMARY, "hlt_exiting"),
    R.INVLPG: (*_PRIMARY, "invlpg_exiting"),
    R.INVPCID: (*_PRIMARY, "invlpg_exiting"),
    R.MWAIT_INSTRUCTION: (*_PRIMARY, "mwait_exiting"),
    R.MONITOR_INSTRUCTION: (*_PRIMARY, "monitor_exiting"),
    R.RDPMC: (*_PRIMARY, "rdpmc_exiting"),
    R.RDTSC: (*_PRIMARY, "rdtsc_exiting"),
    R.RDTSCP: (*_PRIMARY, "rdtsc_exiting"),
    R.DR_ACCESS: (*_PRIMARY, "mov_dr_exiting"),
    R.MONITOR_TRAP_FLAG: (*_PRIMARY, "monitor_trap_flag"),
    R.TPR_BELOW_THRESHOLD: (*_PRIMARY, "use_tpr_shadow"),
    R.APIC_ACCESS: (*_SECONDARY, "virtualize_apic_accesses"),
    R.APIC_WRITE: (*_SECONDARY, "apic_register_virtualization"),
    R.EOI_INDUCED: (*_SECONDARY, "virtual_interrupt_delivery"),
    R.GDTR_IDTR: (*_SECONDARY, "descriptor_table_exiting"),
    R.LDTR_TR: (*_SECONDARY, "descriptor_table_exiting"),
    R.WBINVD: (*_SECONDARY, "wbinvd_exiting"),
    R.RDRAND: (*_SECONDARY, "rdrand_exiting"),
    R.RDSEED: (*_SECONDARY, "rdseed_exiting"),
    R.PML_FULL: (*_SECONDARY, "enable_pml"),
}
_RULES: Final[dict[int, Callable[[Vcpu, Exit], Cause]]] = {
    R.IO_INSTRUCTION: _io,
    R.MSR_READ: _msr,
    R.MSR_WRITE: _msr,
    R.CR_ACCESS: _cr,
    R.EXCEPTION_NMI: _exception,
    R.PAUSE_INSTRUCTION: _pause,
    R.EPT_VIOLATION: _ept,
    R.EPT_MISCONFIG: _ept,
    R.TRIPLE_FAULT: lambda _vcpu, _exit: Cause("a fault met while a double fault was delivered"),
    R.INIT_SIGNAL: lambda _vcpu, _exit: Cause("an INIT signal always exits"),
    R.TASK_SWITCH: lambda _vcpu, _exit: Cause("a task switch always exits"),
}
