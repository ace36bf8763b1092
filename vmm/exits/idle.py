"""HLT, and PAUSE where loops of it exit."""

from typing import TYPE_CHECKING

from hwmodel.vmx.exit import Exit
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu


def handle_pause(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """A PAUSE loop: whoever is waited for may be a vCPU that does not run, so give up the turn."""
    vcpu.vmcs.skip_exit()
    return Outcome.YIELD


def handle_hlt(_vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """Wait for an event; the scheduler knows whether one can still come."""
    return Outcome.HALT
