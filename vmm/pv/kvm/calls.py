"""KVM's hypercalls (Linux Documentation/virt/kvm/x86/hypercalls.rst), one function each."""

from collections.abc import Callable

from vmm.pv.dialect import Hypercall, Processor
from vmm.pv.kvm.abi import Call

Handler = Callable[[Processor, Hypercall], int]


def poll_irq(_cpu: Processor, _call: Hypercall) -> int:
    """Exit, so that pending interrupts are looked at: any hypercall does that."""
    return 0


def plain_calls() -> dict[int, Handler]:
    """Return the calls that no feature bit announces."""
    return {Call.VAPIC_POLL_IRQ: poll_irq}
