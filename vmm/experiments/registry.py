"""The experiments by name; a module is loaded when its experiment is asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from vmm.experiments.report import Report

EXPERIMENTS: Final[dict[str, str]] = {
    "multicall": "n operations in one hypercall against n traps: the amortisation law",
    "clocks": "get_time without exits, through changes of frequency and a move",
    "ring_io": "a device driven by registers against the native ring",
    "pressure": "two VMs on too little memory: swap, balloon, pressure gauge",
    "locks": "lock holders that are preempted: ticket lock against paravirtual lock",
    "numa": "two processors that work with memory of each other's node, with and without hints",
    "xen_batches": "page-table updates of a Xen PV guest, with batching and without",
    "side_channel": "a victim seen on the clock, with and without coarse time",
}
"""Name of a module beside this one, with a function `run() -> Report`; what it shows."""


def run(name: str) -> "Report":
    """Run one. Raises KeyError for an unknown name."""
    EXPERIMENTS[name]
    report: Report = import_module(f"vmm.experiments.{name}").run()
    return report
