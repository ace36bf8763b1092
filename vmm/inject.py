"""Which event the next entry injects, and which window to open when it cannot be now."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hwmodel.arch.vmcs import Field

if TYPE_CHECKING:
    from vmm.architectural_view import ArchitecturalView
    from vmm.vcpu import Vcpu

VALID: Final = 1 << 31
NMI: Final = VALID | 2 << 8 | 2
_EXCEPTION: Final = VALID | 3 << 8
_HAS_ERROR: Final = 1 << 11
_SHADOW: Final = 0b11  # blocking by STI, by MOV SS
_NMI_BLOCKED: Final = 1 << 3
_IF: Final = 1 << 9
_EVENT: Final = Field.VM_ENTRY_INTR_INFO_FIELD.index
_BLOCKED: Final = Field.GUEST_INTERRUPTIBILITY_INFO.index
_RFLAGS: Final = Field.GUEST_RFLAGS.index
_DEBUG: Final = Field.GUEST_PENDING_DBG_EXCEPTIONS.index
_BREAKPOINTS: Final = 0xF
_DR6_CAUSES: Final = 0x600F  # B0 to B3, BD, BS
INTERRUPT_WINDOW: Final = 1 << 2  # primary control bits
NMI_WINDOW: Final = 1 << 22


def deliver_pending(vcpu: "Vcpu", has_interrupt: Callable[[], bool] | None = None) -> None:
    """Put the most urgent event into the VM-entry interruption information, if one can go in.

    Order of the manual's "Priority Among Concurrent Events": what was interrupted in delivery or
    raised by a handler (it is there already), debug traps of the last instruction (the entry
    delivers those, unless it has an event), then NMI, then an external interrupt, if
    `has_interrupt` (by default the local APIC) says that there is one.
    """
    vmcs, fields = vcpu.vmcs, vcpu.vmcs.fields
    has_event = fields[_EVENT] & VALID
    must_wait = has_event or fields[_BLOCKED] & _SHADOW or fields[_DEBUG]
    if vcpu.nmi_pending:
        if must_wait or fields[_BLOCKED] & _NMI_BLOCKED:
            open_window(vcpu, NMI_WINDOW)
            return
        vcpu.nmi_pending = False
        vmcs[Field.VM_ENTRY_INTR_INFO_FIELD] = NMI
        return
    if not (has_interrupt or vcpu.lapic.interrupt_pending)():
        vcpu.look_for_events = False
    elif must_wait or not fields[_RFLAGS] & _IF:
        open_window(vcpu, INTERRUPT_WINDOW)
    else:
        vmcs[Field.VM_ENTRY_INTR_INFO_FIELD] = VALID | vcpu.lapic.acknowledge()
    if not has_event:
        for hook in vcpu.entering:
            hook(vcpu)


def looked(vcpu: "Vcpu") -> None:
    """Nothing to do: the engine makes a Xen PV guest's upcalls by itself."""
    vcpu.look_for_events = False


def open_window(vcpu: "Vcpu", window: int) -> None:
    """Ask for an exit as soon as the guest can take the event; until then nobody need look."""
    vcpu.vmcs[Field.CPU_BASED_VM_EXEC_CONTROL] |= window
    vcpu.look_for_events = False


def close_windows(vcpu: "Vcpu") -> None:
    """Stop asking."""
    vcpu.vmcs[Field.CPU_BASED_VM_EXEC_CONTROL] &= ~(INTERRUPT_WINDOW | NMI_WINDOW)
    vcpu.look_for_events = True


def show_debug_cause(vcpu: "Vcpu", causes: int) -> None:
    """Put into DR6 why #DB comes: injecting it leaves DR6 alone.

    Breakpoints that did not hit are cleared ("Debug Status Register (DR6)": certain debug
    exceptions may; processors do at each but INT1's, which has no cause), the others never.
    """
    if causes:
        vcpu.regs.dr6 = vcpu.regs.dr6 & ~_BREAKPOINTS | causes & _DR6_CAUSES


def inject_exception(
    vcpu: "ArchitecturalView", vector: int, error_code: int | None, cr2: int = 0
) -> None:
    """Make the next entry raise an exception; the instruction that caused it is not skipped.

    Real mode has no error codes, and a VM entry with one fails there.
    """
    has_error = error_code is not None and vcpu.regs.cr0 & 1
    info = _EXCEPTION | vector | (_HAS_ERROR if has_error else 0)
    vcpu.vmcs[Field.VM_ENTRY_INTR_INFO_FIELD] = info
    vcpu.vmcs[Field.VM_ENTRY_EXCEPTION_ERROR_CODE] = error_code or 0
    if vector == 14:
        vcpu.regs.cr2 = cr2


def inject_software_exception(vcpu: "ArchitecturalView", info: int, length: int) -> None:
    """Make the next entry raise INT3's, INTO's or INT1's event again, behind the instruction.

    `info` is what the exit said of it; the entry takes the instruction's length for the pushed RIP.
    """
    vcpu.vmcs[Field.VM_ENTRY_INTR_INFO_FIELD] = VALID | info & 0x7FF
    vcpu.vmcs[Field.VM_ENTRY_INSTRUCTION_LEN] = length
