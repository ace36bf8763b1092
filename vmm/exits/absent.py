"""An access to memory that is swapped out: a dialect may tell the guest, else the vCPU waits."""

from typing import TYPE_CHECKING, Final

from hwmodel.arch.vmcs import Field
from hwmodel.mem.ram import PAGE
from hwmodel.vmx.exit import Exit
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_VALID: Final = 1 << 31
_EVENT: Final = 0x8000_0FFF  # valid, error-code bit, type and vector: alike in both fields


def handle_absent(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Ask for the page; run on if a dialect made that another task's time, else wait for it."""
    page = vmexit.guest_physical & -PAGE
    vcpu.pager.request(page)
    vcpu.board.reschedule()
    vcpu.look_for_events = True
    if vmexit.idt_vectoring_info & _VALID:
        deliver_again(vcpu, vmexit)
    elif any(hook(vcpu, page) for hook in vcpu.dialects.page_absent):
        return Outcome.RESUME
    vcpu.wait_for_page(page)
    return Outcome.YIELD


def deliver_again(vcpu: "Vcpu", vmexit: Exit) -> None:
    """The event whose delivery met the page goes in with the next entry."""
    vcpu.vmcs[Field.VM_ENTRY_INTR_INFO_FIELD] = vmexit.idt_vectoring_info & _EVENT
    vcpu.vmcs[Field.VM_ENTRY_EXCEPTION_ERROR_CODE] = vmexit.idt_vectoring_error
    vcpu.vmcs[Field.VM_ENTRY_INSTRUCTION_LEN] = vmexit.instruction_length
