"""HLT."""

from typing import TYPE_CHECKING

from hwmodel.vmx.exit import Exit
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu


def handle_hlt(_vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """Wait for an event; the scheduler knows whether one can still come."""
    return Outcome.HALT
