"""Several VMs in one process, in step: none is ahead of another by more than a cable's latency.

    wire = Wire()
    with VM(kernel, net=wire.left) as one, VM(kernel, net=wire.right) as other:
        results = run_together(one, other)

What they send each other arrives at the same cycle in every run.
"""

from vmm.net.wire import DEFAULT_LATENCY_NS
from vmm.outcome import Result
from vmm.vm import VM


def run_together(*vms: VM, window_ns: int = DEFAULT_LATENCY_NS) -> list[Result | None]:
    """Run all to their ends; None for those that sleep for ever because nobody wakes them.

    `window_ns` is the latency of the fastest cable between them, or less.
    """
    results: list[Result | None] = [None] * len(vms)
    running = dict(enumerate(vms))
    now = max(vm.clock.ns() for vm in vms)
    while running:
        works = [
            vm.clock.ns_at(cycle)
            for vm in running.values()
            if (cycle := vm.next_work()) is not None
        ]
        if not works:
            break
        now = max(now + window_ns, min(works))
        for number, vm in list(running.items()):
            results[number] = vm.run_until(vm.clock.cycle_at(now))
            if results[number] is not None:
                del running[number]
    return results
