"""The ledger: every cycle of the clock under one heading, for the machine and for each vCPU."""

from typing import Any

import pytest

from hwmodel.timing.ledger import Heading
from tests.images import OFF, elf64
from vmm import VM

EXITS = "mov ebx, 7; again: xor eax, eax; cpuid; dec ebp; jnz again;"
COUNTED = f"mov ebp, 20; {EXITS.replace('mov ebx, 7;', '')}"
SLOW_PORT = "mov ecx, 3; slow: in al, 0x61; loop slow;"
SLEEP = """
    mov al, 0x30; out 0x43, al; mov al, 0xff; out 0x40, al; out 0x40, al
    wait: mov al, 0xe2; out 0x43, al; in al, 0x40; test al, 0x80; jz wait
"""


def run(text: str, **options: Any) -> VM:
    vm = VM(elf64(text), memory="4M", **options)
    vm.run()
    return vm


def test_the_idiom() -> None:
    with run(COUNTED + OFF) as vm:
        assert vm.ledger.exits["CPUID"].count == 20
        assert vm.ledger.exits["EPT_VIOLATION"].count == 0
        assert "EPT_VIOLATION" not in vm.ledger.exits
        with pytest.raises(KeyError, match="no exit reason"):
            vm.ledger.exits["EPT_VIOLATIONS"]
        with pytest.raises(ValueError, match="guests"):
            vm.ledger["guests"]


def test_headings_sum_to_the_clock() -> None:
    with run(COUNTED + SLOW_PORT + OFF) as vm:
        ledger = vm.ledger
        assert ledger.total == vm.clock.now == sum(ledger.as_dict().values())
        assert ledger["guest"] == vm.pcpu.instructions
        assert ledger["device"] == 3 * vm.board.isa.access_cycles
        assert ledger.exits["IO_INSTRUCTION"].cycles == ledger["device"]
        assert list(ledger.as_dict()) == [str(heading) for heading in Heading]


@pytest.mark.held_by("ept", why="names the exits of VT-x with EPT")
def test_every_exit_leaves_a_ledger_that_adds_up() -> None:
    """Also between an exit and its handler, where a completed instruction waits to be booked."""
    with VM(elf64(COUNTED + SLOW_PORT + OFF), memory="4M") as vm:
        totals = []
        for _ in vm:
            assert vm.ledger.total == vm.clock.now
            totals.append(vm.ledger.total)
        assert totals == sorted(totals)
        assert len(totals) == 24


def test_restore_takes_the_ledger_back() -> None:
    with VM(elf64(COUNTED + SLOW_PORT + OFF), memory="4M") as vm:
        before, begins = vm.snapshot(), vm.ledger
        first = vm.run().ledger
        vm.restore(before)
        assert vm.ledger == begins
        assert vm.run().ledger == first
        assert vm.ledger.exits["CPUID"].count == 20


RESET_ONCE = f"""
    mov rbx, 0x200000; inc dword ptr [rbx]
    mov al, 0x11; out 0x70, al; in al, 0x71; cmp al, 0x5a; je over
    mov al, 0x11; out 0x70, al; mov al, 0x5a; out 0x71, al
    mov dx, 0xcf9; mov al, 6; out dx, al
    over: {OFF}
"""


def test_a_reset_keeps_the_ledger() -> None:
    with VM(elf64(RESET_ONCE), memory="4M", max_instructions=200) as vm:
        result = vm.run()
        assert vm.ledger["device"] % vm.board.isa.access_cycles == 0
        assert vm.ledger["device"] >= 5 * vm.board.isa.access_cycles, "before the reset too"
        assert sum(result.ledger.values()) == result.cycles == vm.clock.now


def test_result_and_vm_agree() -> None:
    with VM(elf64(COUNTED + OFF), memory="4M") as vm:
        result = vm.run()
        assert result.ledger == vm.ledger.as_dict()
        assert result.exits == {name: cost.count for name, cost in vm.ledger.exits.items()}
        assert result.cycles == vm.ledger.total


TWO = """
    mov eax, 0xfee00300; mov dword ptr [rax], 0xc4500
    mov dword ptr [rax], 0xc4608; mov dword ptr [rax], 0xc4608
    mov ecx, 2000000; spin: loop spin
"""
SECOND = bytes.fromhex("31c0 40 3d00001000 66 75f7 f4".replace(" ", ""))


def test_vcpus_share_the_clock() -> None:
    """Each vCPU's account sums to the clock: what it neither used nor was kept from, it slept."""
    with VM(elf64(TWO + OFF), memory="4M", cpus=2, max_cycles=3_000_000) as vm:
        vm.memory.write(0x8000, b"\xfb\xeb\xfe")  # sti; jmp $
        vm.run()
        ledger = vm.ledger
        assert len(ledger.vcpus) == 2
        for account in ledger.vcpus:
            assert account.total == ledger.total == vm.clock.now
        assert sum(account["guest"] for account in ledger.vcpus) == ledger["guest"]
        one, other = ledger.vcpus
        assert one["steal"] > 100_000, "the other one had the processor"
        assert other["steal"] > 100_000
        assert one["guest"] + one["steal"] + one["injection"] == vm.clock.now, "it never slept"
        assert ledger["steal"] == 0
