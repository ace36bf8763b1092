"""The engine's own stops, which are no exits: deadline, interruption, defect."""

from typing import TYPE_CHECKING, Final

from hwmodel.vmx.exit import DEADLINE, INTERNAL, INTERRUPTED, Exit
from vmm.errors import InternalError
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu


def handle_turn_over(_vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """The clock has reached the end of the turn, or somebody wants the run to end."""
    return Outcome.YIELD


def handle_internal(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """The engine cannot go on: a defect of ours."""
    raise InternalError(f"the engine cannot go on: {vcpu.pcpu.message}")


HANDLERS: Final = {
    DEADLINE: handle_turn_over,
    INTERRUPTED: handle_turn_over,
    INTERNAL: handle_internal,
}
