"""The engine's own stops, which are no exits: deadline, interruption, defect."""

from typing import TYPE_CHECKING, Final

from hwmodel.vmx.exit import (
    BREAKPOINT,
    DEADLINE,
    INTERNAL,
    INTERRUPTED,
    VM_FAIL,
    VMX_ABORT,
    Exit,
)
from vmm.errors import InternalError
from vmm.outcome import Outcome, StopReason

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu


def handle_turn_over(_vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """The clock has reached the end of the turn, or somebody wants the run to end."""
    return Outcome.YIELD


def handle_internal(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """The engine cannot go on: a defect of ours."""
    raise InternalError(f"the engine cannot go on: {vcpu.pcpu.message}")


def handle_vm_fail(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """There was no entry: a control or the host state is wrong. What asked for it is named."""
    error, check = vmexit.qualification, vcpu.pcpu.failed_check
    vcpu.stop(
        StopReason.ENTRY_FAILURE, f"VM entry failed: VM-instruction error {error}, check {check}"
    )
    return Outcome.STOP


def handle_vmx_abort(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """There could be no exit: a list of MSRs is wrong."""
    vcpu.stop(StopReason.ENTRY_FAILURE, f"VM exit failed: VMX-abort {vmexit.qualification}")
    return Outcome.STOP


HANDLERS: Final = {
    VM_FAIL: handle_vm_fail,
    VMX_ABORT: handle_vmx_abort,
    DEADLINE: handle_turn_over,
    INTERRUPTED: handle_turn_over,
    BREAKPOINT: handle_turn_over,  # whoever set it asks the engine
    INTERNAL: handle_internal,
}
