"""APIC virtualization in a whole machine, on small guests made for one question each.

Sources: Intel SDM, "APIC Virtualization and Virtual Interrupts", "Extended XAPIC (x2APIC)".
"""

from typing import Any

import pytest

from tests.images import EXIT, elf64
from vmm import VM
from vmm.apicv import NOTIFICATION
from vmm.devices.lapic_registers import Reg
from vmm.devices.lapic_virtual import DESCRIPTOR_BYTES, VirtualPage
from vmm.errors import UsageError

VECTOR, LEVEL_VECTOR = 0x51, 0x61
X2APIC_ON = "mov ecx, 0x1b; rdmsr; or eax, 0x400; wrmsr"
ENABLE = "mov ebx, 0xfee00000; mov dword ptr [rbx + 0xf0], 0x1ff"
ENABLE_X2 = X2APIC_ON + "; mov ecx, 0x80f; mov eax, 0x1ff; xor edx, edx; wrmsr"


def gate(vector: int, handler: str) -> str:
    """Write an interrupt gate for `vector` into the table at 0x200000."""
    return f"""
        lea rax, [rip + {handler}]; mov rdi, {0x200000 + 16 * vector}
        mov word ptr [rdi], ax; mov word ptr [rdi + 2], cs; mov word ptr [rdi + 4], 0x8e00
        shr rax, 16; mov word ptr [rdi + 6], ax; shr rax, 16; mov dword ptr [rdi + 8], eax
    """


def guest(body: str, handlers: str, *gates: str) -> bytes:
    """Interrupts lead to `handlers`; the body ends with EXIT."""
    return elf64(f"""
        mov rsp, 0x300000; mov word ptr [0x2ff000], 0xfff; mov qword ptr [0x2ff002], 0x200000
        lidt [0x2ff000]
        {"; ".join(gates)}
        {body}
        {EXIT}
        {handlers}
    """)


def both(image: bytes, **options: Any) -> tuple[Any, Any]:
    """Run without and with; the guest must say the same."""
    ends = []
    for apicv in (False, True):
        with VM(image, memory="8M", apicv=apicv, dialects=["none"], max_instructions=10**6,
                reboot=False, **options) as vm:  # fmt: skip
            result = vm.run()
            assert result.reason == "debug_exit", result.message
            ends.append((result.status, result.digest(), result))
    assert ends[0][:2] == ends[1][:2]
    return ends[0][2], ends[1][2]


SELF_IPI = f"""mov dword ptr [rbx + 0x300], {0x40000 | VECTOR:#x}; sti; nop; nop; cli
    mov eax, r12d"""
COUNTS = "handler: inc r12d; mov dword ptr [rbx + 0xb0], 0; iretq"


def test_a_self_ipi_and_its_end_do_not_exit() -> None:
    plain, virtual = both(guest(f"{ENABLE}; {SELF_IPI}", COUNTS, gate(VECTOR, "handler")))
    assert virtual.status == 1 << 1 | 1
    assert plain.exits["EPT_VIOLATION"] == 3
    assert "EPT_VIOLATION" not in virtual.exits
    assert virtual.exits["APIC_ACCESS"] == 1  # software switches the APIC on


def test_the_same_by_msr() -> None:
    body = f"""{ENABLE_X2}; mov ecx, 0x83f; mov eax, {VECTOR}; xor edx, edx; wrmsr
        sti; nop; cli; mov eax, r12d"""
    ends = "handler: inc r12d; mov ecx, 0x80b; xor eax, eax; xor edx, edx; wrmsr; iretq"
    plain, virtual = both(guest(body, ends, gate(VECTOR, "handler")))
    assert virtual.status == 3
    assert plain.exits["MSR_WRITE"] - virtual.exits["MSR_WRITE"] == 2


def test_reserved_bits_of_x2apic_registers_fault() -> None:
    body = f"{ENABLE_X2}; mov ecx, 0x80b; mov eax, 1; xor edx, edx; wrmsr; mov eax, r12d"
    faults = f"handler: mov eax, 7; {EXIT}"
    _, virtual = both(guest(body, faults, gate(13, "handler")))
    assert virtual.status == 7 << 1 | 1


REGISTERS = (
    0x20, 0x30, 0x80, 0xA0, 0xD0, 0xE0, 0xF0, 0x100, 0x180, 0x200, 0x280, 0x300, 0x320, 0x370,
    0x380, 0x390, 0x3E0, 0x40, 0x3F0,
)  # fmt: skip


@pytest.mark.parametrize("register", REGISTERS)
def test_every_register_reads_the_same(register: int) -> None:
    body = f"{ENABLE}; mov dword ptr [rbx + 0x80], 0x35; mov eax, [rbx + {register:#x}]"
    both(guest(body, ""))


def test_the_task_priority_holds_back_without_exits() -> None:
    body = f"""{ENABLE}; mov eax, {VECTOR >> 4}; mov cr8, rax
        mov dword ptr [rbx + 0x300], {0x40000 | VECTOR:#x}; sti; nop; nop; mov r13d, r12d
        xor eax, eax; mov cr8, rax; nop; nop; cli; mov eax, r12d; shl eax, 4; or eax, r13d"""
    plain, virtual = both(guest(body, COUNTS, gate(VECTOR, "handler")))
    assert virtual.status == 0x10 << 1 | 1
    assert plain.exits["CR_ACCESS"] - virtual.exits.get("CR_ACCESS", 0) == 2


def test_the_end_of_a_level_triggered_interrupt_exits_and_asks_again() -> None:
    """The test device holds GSI 20 up until the second time: the I/O APIC sends it twice."""
    body = f"""{ENABLE}; mov esi, 0xfec00000
        mov dword ptr [rsi], 0x38; mov dword ptr [rsi + 0x10], {0x8000 | LEVEL_VECTOR:#x}
        mov dx, 0x2014; mov al, 1; out dx, al
        sti; nop; nop; nop; nop; nop; nop; cli; mov eax, r12d"""
    handler = """handler: inc r12d; cmp r12d, 2; jne up; mov dx, 0x2014; xor eax, eax; out dx, al
        up: mov dword ptr [rbx + 0xb0], 0; iretq"""
    _, virtual = both(guest(body, handler, gate(LEVEL_VECTOR, "handler")))
    assert virtual.status == 2 << 1 | 1
    assert virtual.exits["EOI_INDUCED"] == 2


def test_an_apic_that_moves_away_is_emulated() -> None:
    body = f"""{ENABLE}; mov ecx, 0x1b; rdmsr; mov eax, 0xfed00900; wrmsr
        mov esi, ebx; mov ebx, 0xfed00000; mov r14d, [rsi + 0x30]
        {SELF_IPI}; xor eax, r14d; neg eax"""
    _, virtual = both(guest(body, COUNTS, gate(VECTOR, "handler")))
    assert virtual.exits["EPT_VIOLATION"] >= 3


def test_switched_off_by_software_nothing_is_virtual() -> None:
    body = f"{ENABLE}; mov dword ptr [rbx + 0xf0], 0xff; {SELF_IPI}"
    _, virtual = both(guest(body, COUNTS, gate(VECTOR, "handler")))
    assert virtual.status == 1
    assert virtual.exits["APIC_ACCESS"] == 2


def test_page_tables_on_the_access_page_end_the_run() -> None:
    image = elf64(f"{ENABLE}; mov rax, 0xfee00000; mov cr3, rax; nop")
    for apicv in (False, True):
        with VM(image, memory="8M", apicv=apicv, reboot=False) as vm:
            result = vm.run()
        assert "page tables lie where no memory is" in result.message


def test_a_snapshot_keeps_what_is_posted() -> None:
    image = guest(f"{ENABLE}; hlt; nop; mov eax, r12d", COUNTS, gate(VECTOR, "handler"))
    with VM(image, memory="8M", apicv=True, dialects=["none"], reboot=False) as vm:
        for vmexit in vm:
            if vmexit.name == "APIC_WRITE":
                break
        lapic = vm.vcpus[0].lapic
        lapic.page.request(VECTOR)
        kept, digest = vm.snapshot(), vm.digest()
        lapic.page.reset(0, x2apic=False)
        vm.restore(kept)
        assert vm.digest() == digest
        assert lapic.page.test_bit(Reg.IRR, VECTOR)


def test_the_notification_is_taken_back_for_another_vcpu() -> None:
    """Two processors that send to each other: nothing arrives at the wrong one, none exits."""
    page = VirtualPage(memoryview(bytearray(4096)), memoryview(bytearray(DESCRIPTOR_BYTES)))
    page.request(VECTOR)
    page.request(NOTIFICATION)
    assert page.is_outstanding
    assert page.requested() == -1
    assert page.highest(Reg.IRR) == NOTIFICATION
    assert not page.is_outstanding
    assert page.requested() == NOTIFICATION
    page.set_bit(Reg.IRR, NOTIFICATION, value=False)
    assert page.highest(Reg.IRR) == VECTOR


def test_it_is_the_technique_of_vt_x() -> None:
    with pytest.raises(UsageError, match="--apicv is VT-x's"):
        VM(elf64("hlt"), apicv=True, technique="trap")
