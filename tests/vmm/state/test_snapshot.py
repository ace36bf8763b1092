"""Snapshots: going back is complete, cheap, and leaves nothing of the other time behind."""

import pytest

from hwmodel.mem.ram import PAGE
from hwmodel.pcpu import Pcpu
from tests.images import EXIT, OFF, elf64
from vmm import VM

# A count in memory, one in a register, one in XMM, one in CMOS; exits in between; a running PIT.
WORK = f"""
    mov rax, cr4
    or eax, 0x600
    mov cr4, rax
    mov rsp, 0x300000
    mov al, 0x34
    out 0x43, al
    mov r8d, 40
    mov edi, 0x200000
again:
    inc qword ptr [rdi]
    mov [rdi + r8 * 8], r8
    cvtsi2sd xmm0, r8d
    addsd xmm1, xmm0
    mov al, 0x40
    out 0x70, al
    in al, 0x71
    inc al
    out 0x71, al
    mov ecx, 300
spin:
    loop spin
    cpuid
    rdtsc
    add r9, rax
    dec r8d
    jnz again
    {OFF}
"""


def stopped_at(vm: VM, exits: int) -> None:
    """Run to an exit that the guest's own instructions ask for, however it is held."""
    for vmexit in vm:
        exits -= vmexit.name in {"IO_INSTRUCTION", "CPUID"}
        if not exits:
            return


def end(vm: VM) -> tuple[object, ...]:
    result = vm.run()
    return result.status, result.instructions, result.cycles, result.digest(), vm.regs.as_dict()


def test_to_the_end_from_the_same_snapshot_twice() -> None:
    with VM(elf64(WORK), memory="4M") as vm:
        stopped_at(vm, 30)
        snapshot = vm.snapshot()
        first = end(vm)
        vm.restore(snapshot)
        assert vm.memory[0x20_0000] == 8  # one exit for the PIT, four each time round
        assert end(vm) == first


def test_a_snapshot_changes_nothing() -> None:
    with VM(elf64(WORK), memory="4M") as vm:
        whole = end(vm)
    with VM(elf64(WORK), memory="4M") as vm:
        for count, _ in enumerate(vm):
            if count % 7 == 0:
                vm.snapshot()
        assert end(vm) == whole


def test_the_start_is_a_snapshot_like_others() -> None:
    with VM(elf64(WORK), memory="4M") as vm:
        start = vm.snapshot()
        before = vm.digest()
        first = end(vm)
        assert vm.digest() != before
        vm.restore(start)
        assert vm.digest() == before
        assert (vm.clock.now, vm.pcpu.instructions) == (0, 0)
        assert end(vm) == first


def test_back_and_forth_between_several() -> None:
    with VM(elf64(WORK), memory="4M") as vm:
        kept = []
        for count, _ in enumerate(vm):
            if count % 25 == 5:
                kept.append((vm.snapshot(), vm.digest(), vm.memory[0x20_0000]))
        assert len(kept) > 4
        last = vm.run().digest()
        for index in (3, 0, 2, 2, 1, 4, 0):
            snapshot, digest, number = kept[index]
            vm.restore(snapshot)
            assert (vm.digest(), vm.memory[0x20_0000]) == (digest, number)
        assert vm.run().digest() == last


def test_restored_in_the_middle_of_a_loop_over_exits() -> None:
    """The handler of the exit that was open does not run on the restored state."""
    with VM(elf64(WORK), memory="4M") as vm:
        snapshot, digest = None, ""
        returns = 0
        for count, _ in enumerate(vm):
            if count == 10:
                snapshot, digest = vm.snapshot(), vm.digest()
            if count == 33 and snapshot is not None and not returns:
                vm.restore(snapshot)
                assert vm.digest() == digest
                returns += 1
        got = vm.run().digest()
    with VM(elf64(WORK), memory="4M") as vm:
        assert vm.run().digest() == got
    assert returns == 1


def test_pages_are_shared_between_snapshots() -> None:
    with VM(elf64(WORK), memory="4M") as vm:
        stopped_at(vm, 20)
        first = vm.snapshot()
        stopped_at(vm, 8)
        second = vm.snapshot()
    same = [n for n in first.pages if second.pages.get(n) is first.pages[n]]
    changed = {n for n in second.pages if second.pages[n] is not first.pages.get(n)}
    assert same
    assert 0x200 in changed
    assert len(changed) <= 4


def test_host_writes_are_in_snapshots_and_undone() -> None:
    with VM(elf64(WORK), memory="4M") as vm:
        empty = vm.snapshot()
        vm.memory[0x38_0000] = 7
        written = vm.snapshot()
        vm.restore(empty)
        assert vm.memory[0x38_0000] == 0
        vm.restore(written)
        assert vm.memory[0x38_0000] == 7


def test_writes_of_an_earlier_run_are_undone_after_a_second_one() -> None:
    """Pages written before one restore are still found dirty after the next."""
    code = f"mov edi, 0x280000; inc dword ptr [rdi]; mov eax, [rdi]; {EXIT}"
    with VM(elf64(code), memory="4M") as vm:
        start = vm.snapshot()
        for _ in range(4):
            assert vm.run().status == 3
            vm.restore(start)


def test_code_that_was_changed_is_changed_back() -> None:
    """The guest overwrites an immediate that has run; after the restore the old one runs."""
    code = f"""
        mov r8d, 2
        lea rdi, [rip + target]
    again:
        cpuid
    target:
        mov al, 1
        mov byte ptr [rdi + 1], 5
        dec r8d
        jnz again
        movzx eax, al
        {EXIT}
    """
    with VM(elf64(code), memory="4M") as vm:
        start = vm.snapshot()
        for _ in range(3):
            assert vm.run().status == 5 << 1 | 1
            vm.restore(start)


def test_the_end_is_forgotten_by_a_restore() -> None:
    with VM(elf64(f"mov eax, 3; {EXIT}"), memory="4M") as vm:
        start = vm.snapshot()
        assert vm.run().status == 7
        vm.restore(start)
        assert not vm.is_stopped()
        assert vm.run().status == 7
        vm.restore(start)
        vm.interrupt()
        assert vm.run().status == 130


@pytest.mark.parametrize("where", ["memory", "register", "device", "xmm"])
def test_the_digest_sees(where: str) -> None:
    with VM(elf64(OFF), memory="4M") as vm:
        before = vm.digest()
        assert vm.digest() == before
        if where == "memory":
            vm.memory[0x3F_FFFF] = 1
        elif where == "register":
            vm.regs.r13 = 1
        elif where == "xmm":
            vm.pcpu.set_xmm(vm.current.vmcs, 3, 1)
        else:
            vm.board.ports.write(0x70, 1, 0x40)
            vm.board.ports.write(0x71, 1, 0x5A)
        assert vm.digest() != before


def test_the_digest_is_not_of_the_host() -> None:
    """Neither translations nor counters of the engine are part of it."""
    with VM(elf64(OFF), memory="4M") as vm:
        before = vm.digest()
        pcpu: Pcpu = vm.pcpu
        pcpu.flush_tlb()
        pcpu.harvest_dirty()
        vm.snapshot()
        assert vm.digest() == before


def test_with_two_vcpus_mid_turn() -> None:
    with VM(elf64(WORK), memory="4M", cpus=2) as vm:
        stopped_at(vm, 17)
        snapshot = vm.snapshot()
        first = end(vm)
        vm.restore(snapshot)
        assert end(vm) == first


def test_an_end_of_interrupt_is_in_both_halves_or_in_none() -> None:
    """What a PV EOI ended is booked as the local APIC is written down; the dialect knows of it."""
    with VM(elf64(WORK), memory="4M", dialects=["kvm"]) as vm:
        dialects = vm.vcpus[0].dialects
        state = dialects.save()
        kvm = state["kvm"]
        assert isinstance(kvm, dict)
        kvm["eoi"] = {"values": [0x20_0001], "armed": [1]}  # its bit in memory is clear
        dialects.restore(state)
        saved = vm.snapshot().dialects["kvm"]
        assert saved["eoi"] == {"values": [0x20_0001], "armed": [0]}


def test_whole_pages_of_the_image_are_not_copied_and_a_reset_finds_them_again() -> None:
    """A kernel has 40 MiB; what the guest writes is a page of its own in the next snapshot."""
    fill = ".byte " + ",".join(["0xf4"] * PAGE) + ";"
    with VM(elf64(f"mov dword ptr [0x102000], 1; {OFF};" + fill * 4), memory="4M") as vm:
        before = dict(vm.snapshot().pages)
        views = [n for n, page in before.items() if n >= 0x100 and isinstance(page, memoryview)]
        assert views == [0x100, 0x101, 0x102, 0x103]
        assert all(before[n] == vm.memory[n * PAGE : (n + 1) * PAGE] for n in before)
        power_on = vm.snapshot()
        vm.run()
        after = vm.snapshot().pages
        assert [n for n in views if after[n] is not before[n]] == [0x102]
        assert after[0x102] == bytes([1, 0, 0, 0]) + b"\xf4" * (PAGE - 4)
        vm.restore(power_on)
        assert all(before[n] == vm.memory[n * PAGE : (n + 1) * PAGE] for n in before)
