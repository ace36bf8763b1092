"""VMs in step: to the cycle, awake or asleep, and nobody waits for ever."""

from tests.images import elf64
from vmm import VM
from vmm.net.wire import Wire
from vmm.together import run_together

COUNT = "mov ecx, 300000; again: dec ecx; jnz again; mov al, 3; out 0xf4, al"
SLEEP = "cli; hlt"
DOZE = "lidt [rip]; sti; hlt"


def test_running_until_a_cycle_stops_exactly_there() -> None:
    with VM(elf64(COUNT), memory="4M") as vm:
        for cycle in (1, 1000, 1001, 250_000):
            assert vm.run_until(cycle) is None
            assert vm.clock.now == cycle
        whole = vm.run()
    with VM(elf64(COUNT), memory="4M") as vm:
        alone = vm.run()
    assert (whole.status, whole.instructions, whole.cycles) == (
        *(alone.status, alone.instructions, alone.cycles),
    )
    assert whole.status == 7


def test_ends_are_told_each() -> None:
    with VM(elf64(COUNT), memory="4M") as one, VM(elf64(SLEEP), memory="4M") as other:
        first, second = run_together(one, other)
    assert first is not None
    assert second is not None
    assert (first.reason, second.reason) == ("debug_exit", "halted")


def test_who_sleeps_beside_a_cable_that_is_silent_ends_nowhere() -> None:
    wire = Wire()
    with (
        VM(elf64(DOZE), memory="4M", net=wire.left) as one,
        VM(elf64(DOZE), memory="4M", net=wire.right) as other,
    ):
        assert run_together(one, other) == [None, None]
        assert one.next_work() is None
        assert one.run_until(one.clock.now + 5000) is None
