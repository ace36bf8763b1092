"""Memory that is swapped out: what a guest without any dialect notices of it is time."""

import pytest

from tests.images import OFF, elf64
from vmm import VM, UsageError
from vmm.memory.pager import LATENCY

FAR = 0x30_0000
READ = f"mov rdx, {FAR}; mov rax, [rdx]; mov qword ptr [rdx + 8], 7; {OFF}"


def guest(code: str = READ) -> VM:
    vm = VM(elf64(code), memory="4M", dialects="none")
    vm.memory.write(FAR, (42).to_bytes(8, "little"))
    return vm


EPT = pytest.mark.held_by("ept", why="shadow tables fault once more, and name it a page fault")


@EPT
def test_an_access_waits_for_the_disk() -> None:
    with guest() as vm:
        quick = vm.run()
    with guest() as vm:
        vm.pager.swap_out(FAR, 4096)
        slow = vm.run()
        assert vm.regs.rax == 42
        assert vm.memory.read(FAR + 8, 1) == b"\x07"
        assert not vm.memory.absent
        assert slow.exits["EPT_VIOLATION"] == 1
    assert slow.instructions == quick.instructions
    assert slow.cycles == quick.cycles + LATENCY
    assert slow.status == quick.status == 0


def test_code_that_is_out_is_fetched() -> None:
    with guest() as vm:
        vm.pager.swap_out(0x10_0000, 4096)
        assert vm.run().status == 0
        assert vm.regs.rax == 42


@EPT
def test_one_disk_read_serves_who_waits() -> None:
    """What is on its way stays so when it is taken out again."""
    with guest() as vm:
        vm.pager.swap_out(FAR, 4096)
        for _ in vm:
            break
        assert vm.run().status == 0
    with guest() as vm:
        vm.pager.swap_out(FAR, 4096)
        steps = iter(vm)
        assert next(steps).name == "EPT_VIOLATION"
        vm.pager.request(FAR)
        due = vm.pager.next_event()
        vm.pager.swap_out(FAR, 2 * 4096)
        assert vm.pager.next_event() == due
        assert vm.run().status == 0
        assert vm.regs.rax == 42
        assert vm.memory.absent == {FAR + 4096}


def test_a_snapshot_remembers_who_waits() -> None:
    with guest() as vm:
        vm.pager.swap_out(FAR, 4096)
        before = vm.snapshot()
        whole = vm.run()
        digest = vm.digest()
        vm.restore(before)
        assert vm.memory.absent == {FAR}
        vm.scheduler.run(vm.clock.now + 1000)  # into the wait
        assert vm.pager.next_event() is not None
        waiting = vm.snapshot()
        assert vm.run().cycles == whole.cycles
        vm.restore(waiting)
        assert (vm.run().cycles, vm.digest()) == (whole.cycles, digest)


def test_a_device_instruction_that_meets_absent_memory_goes_on() -> None:
    """MOVS from a local APIC's register to memory that is out: the hypervisor brings it back."""
    move = "movsd dword ptr [rdi], dword ptr [rsi]; mov eax, [rdi - 4]"
    code = f"mov rsi, 0xfee00030; mov rdi, {FAR}; {move}; {OFF}"
    with guest(code) as vm:
        vm.pager.swap_out(FAR, 4096)
        assert vm.run().status == 0
        assert vm.regs.rax == 0x5_0014
        assert not vm.memory.absent


@pytest.mark.parametrize(("gpa", "size"), [(0x40_0000, 4096), (0, 0), (FAR, 1 << 40), (-4096, 8)])
def test_only_ram_can_be_out(gpa: int, size: int) -> None:
    with guest() as vm, pytest.raises(UsageError, match="not RAM"):
        vm.pager.swap_out(gpa, size)
