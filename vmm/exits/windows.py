"""Interrupt and NMI windows: the guest can take an event now."""

from typing import TYPE_CHECKING

from hwmodel.vmx.exit import Exit
from vmm.inject import close_windows
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu


def handle_window(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """Close the window; the event itself goes in before the next entry."""
    close_windows(vcpu)
    return Outcome.RESUME
