"""HLT, and PAUSE where loops of it exit."""

from typing import TYPE_CHECKING

from hwmodel.arch.vmcs import Field
from hwmodel.vmx.exit import Exit
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_GROWTH = 2  # KVM's ple_window_grow


def handle_pause(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """A PAUSE loop: whoever is waited for may be a vCPU that does not run, so give up the turn.

    The next one that could run has it; nobody else means that the loop goes on. As in KVM
    (grow_ple_window() of arch/x86/kvm/vmx/vmx.c) it may last twice as long before it exits again,
    until another virtual CPU has had the processor.
    """
    vcpu.vmcs[Field.PLE_WINDOW] = min(vcpu.vmcs[Field.PLE_WINDOW] * _GROWTH, Field.PLE_WINDOW.mask)
    count = len(vcpu.board.lapics)
    others = ((vcpu.index + distance) % count for distance in range(1, count))
    if not any(vcpu.give_turn(index) for index in others):
        return Outcome.SKIP
    vcpu.vmcs.skip_exit()
    vcpu.pcpu.settle(vcpu.vmcs)  # the PAUSE is its own: from here on it waits
    return Outcome.YIELD


def handle_hlt(_vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """Wait for an event; the scheduler knows whether one can still come."""
    return Outcome.HALT
