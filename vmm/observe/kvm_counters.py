"""A run in KVM's own counters: the names that KVM_GET_STATS_FD and debugfs show.

Only those that mean the same here (Linux arch/x86/kvm/x86.c, kvm_vm_stats_desc and
kvm_vcpu_stats_desc); what this hypervisor has no counterpart of is left out, not zero.
"""

from typing import Any, Final

from hwmodel.cpu.recording import Counters, Event, Sum
from hwmodel.timing.ledger import Ledger

_BY_EXIT: Final = {
    "io_exits": ("IO_INSTRUCTION",),
    "irq_exits": ("EXTERNAL_INTERRUPT",),
    "irq_window_exits": ("INTERRUPT_WINDOW",),
    "nmi_window_exits": ("NMI_WINDOW",),
    "halt_exits": ("HLT",),
    "hypercalls": ("VMCALL",),
    "invlpg": ("INVLPG",),
    "pf_taken": ("EPT_VIOLATION", "EPT_MISCONFIG"),
    "notify_window_exits": ("NOTIFY",),
}


def kvm_counters(
    ledger: Ledger, counters: Counters, mmu: dict[str, Any], sums: list[Sum], woken: int
) -> dict[str, int]:
    """Return them by name; `woken`: how often a virtual CPU came out of HLT."""
    found = {"exits": sum(cost.count for cost in ledger.exits.values())}
    for name, exits in _BY_EXIT.items():
        found[name] = sum(ledger.exits[exit_name].count for exit_name in exits)
    return found | {
        "mmio_exits": sum(part.count for part in sums if part.event is Event.MMIO),
        "halt_wakeup": woken,
        "irq_injections": counters.injected_interrupts,
        "nmi_injections": counters.injected_nmis,
        "tlb_flush": mmu["flushes_invvpid"] + mmu["flushes_invept"],
    }
