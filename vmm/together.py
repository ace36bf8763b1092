"""Several VMs in one process, in step: none is ahead of another by more than a cable's latency.

    wire = Wire()
    with VM(kernel, net=wire.left) as one, VM(kernel, net=wire.right) as other:
        results = run_together(one, other)

What they send each other arrives at the same cycle in every run. And one VM goes on where another
was (`go_on_as`).
"""

from vmm.net.wire import DEFAULT_LATENCY_NS
from vmm.outcome import Result
from vmm.state.snapshot import Snapshot
from vmm.vm import VM


def go_on_as(vm: VM, snapshot: Snapshot, life: int) -> None:
    """Have `vm` go on from a snapshot of another VM of the same shape, as migration would.

    The moment is the other's, the machine is this one: its processor keeps its own frequency, and
    what guests keep time by is told. `life` is another number for each that goes on from the same
    snapshot: guests of the native dialect learn of it, and their entropy is another.
    """
    frequency = vm.clock.frequency
    vm.restore(snapshot)
    vm.governor.set(frequency)
    for dialect in vm.dialects.dialects:
        dialect.begin_life(life)


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
