"""The wake-up mailbox: as a device, and from a guest that starts its second processor with it."""

import pytest

from tests.images import EXIT, elf64
from vmm import VM
from vmm.boardmap import WAKEUP_MAILBOX
from vmm.devices.wakeup import WakeupMailbox
from vmm.errors import UsageError

COMMAND, APIC_ID, ADDRESS, FIRMWARE = 0, 4, 8, 0x800


class Machine:
    def __init__(self, *waiting: int) -> None:
        self.woken: list[tuple[int, int]] = []
        self.waiting = set(waiting)
        self.mailbox = WakeupMailbox(self.wake)

    def wake(self, cpu: int, address: int) -> bool:
        if cpu not in self.waiting:
            return False
        self.waiting.remove(cpu)
        self.woken.append((cpu, address))
        return True

    def order(self, cpu: int, address: int) -> int:
        self.mailbox.write(APIC_ID, 4, cpu)
        self.mailbox.write(ADDRESS, 8, address)
        self.mailbox.write(COMMAND, 2, 1)
        return self.mailbox.read(COMMAND, 2)


def test_a_command_is_taken_by_the_one_that_waits() -> None:
    machine = Machine(1, 2)
    assert machine.order(2, 0x9000) == 0
    assert machine.order(2, 0xA000) == 1, "it runs already: nobody takes the command"
    assert machine.order(1, 1 << 40) == 0
    assert machine.woken == [(2, 0x9000), (1, 1 << 40)]


def test_only_the_command_wakes() -> None:
    machine = Machine(1)
    for value in (0, 2, 0x101):
        machine.mailbox.write(APIC_ID, 4, 1)
        machine.mailbox.write(COMMAND, 2, value)
    assert machine.woken == []
    machine.mailbox.write(COMMAND, 8, 1 << 32 | 1)
    assert machine.woken == [(1, 0)], "one store may carry command and processor"


def test_the_firmwares_half_is_read_only() -> None:
    machine = Machine()
    machine.mailbox.write(FIRMWARE, 8, 5)
    machine.mailbox.write(FIRMWARE - 4, 8, 0x1_0000_0002)
    assert machine.mailbox.read(FIRMWARE, 8) == 0
    assert machine.mailbox.read(FIRMWARE - 4, 4) == 2


WAKE_TWO = f"""
    mov rbx, {WAKEUP_MAILBOX}; lea rax, [rip + other]; mov dword ptr [rbx + 4], 1;
    mov [rbx + 8], rax; mov word ptr [rbx], 1; movzx esi, word ptr [rbx];
wait: pause; cmp dword ptr [rip + seen], 0; je wait;
    mov eax, [rip + seen]; add eax, esi; {EXIT}; cli; hlt;
other: mov ecx, 0xc0000080; rdmsr; shr eax, 10; and eax, 1; mov ecx, eax; mov edx, cs;
    add ecx, edx; mov [rip + seen], ecx; cli; hlt;
seen: .long 0
"""


def test_the_second_processor_starts_in_64_bit_mode() -> None:
    """It adds EFER.LMA to its code selector; the first adds the command as it reads back: zero."""
    image = elf64(WAKE_TWO)
    with VM(image, cpus=2, wakeup="mailbox", max_instructions=1_000_000) as vm:
        result = vm.run()
    assert (result.reason, result.status) == ("debug_exit", (8 + 1) << 1 | 1)


def test_without_the_option_the_page_is_nobodys() -> None:
    with VM(elf64(f"mov rbx, {WAKEUP_MAILBOX}; mov eax, [rbx]; and eax, 0x7f; {EXIT}")) as vm:
        assert vm.run().status == 0x7F << 1 | 1


def test_a_wrong_choice_is_refused() -> None:
    with pytest.raises(UsageError, match="--wakeup 'door' is not one of sipi, mailbox"):
        VM(wakeup="door")
