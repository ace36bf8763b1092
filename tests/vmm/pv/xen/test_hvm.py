"""`--dialect xen` by a bare guest: discovery, hypercalls and their errors, events, Xen's pages.

Judged by public/arch-x86/cpuid.h, public/hvm/{hvm_op,params}.h, public/memory.h, event_channel.h.
"""

import random
import struct
from collections.abc import Sequence
from typing import Any

import pytest

from tests.images import OFF, elf64
from tests.vmm.pv.xen.calls import LIST, ListGuest
from vmm import VM, Result
from vmm.devices.lapic_registers import Reg
from vmm.errors import UsageError
from vmm.pv.xen.abi import Call, Errno

DATA, PAGES, STUBS = 0x30_0000, 0x31_0000, 0x32_0000
SELF = 0x7FF0
SOURCE = """
    mov ecx, 0x40000000
    mov eax, {stubs}
    xor edx, edx
    wrmsr
    mov r13, {list}
    mov r14, {count}
again:
    test r14, r14
    jz over
    mov rax, [r13]
    shl rax, 5
    lea r15, [rax + {stubs}]
    mov rdi, [r13 + 8]
    mov rsi, [r13 + 16]
    mov rdx, [r13 + 24]
    mov r10, [r13 + 32]
    mov r8, [r13 + 40]
    mov r9, [r13 + 48]
    call r15
    mov [r13 + 56], rax
    add r13, 64
    dec r14
    jmp again
over:
    {off}
"""
Number = tuple[int, ...]


class Guest(ListGuest):
    """Makes hypercalls through the page of stubs; data lie at DATA."""

    def __init__(self, count: int, **options: Any) -> None:
        code = SOURCE.format(stubs=STUBS, list=LIST, count=count, off=OFF)
        given: dict[str, Any] = {"memory": "16M", "max_instructions": 50_000_000, **options}
        self.vm = VM(elf64(code), dialects="xen", **given)
        self.xen: Any = self.vm.dialects["xen"]

    def put(self, offset: int, data: bytes) -> int:
        self.vm.memory.write(DATA + offset, data)
        return DATA + offset

    def run(self, calls: Sequence[Number]) -> tuple[list[int], Result]:
        """Make calls of (number, arguments...); return what they returned, signed."""
        return self.make([struct.pack("<8Q", *call, *[0] * (8 - len(call))) for call in calls])


def physmap(space: int, index: int, gfn: int, domain: int = SELF) -> bytes:
    return struct.pack("<HHIQQ", domain, 0, space, index, gfn)


def param(index: int, value: int = 0, domain: int = SELF) -> bytes:
    return struct.pack("<HHIQ", domain, 0, index, value)


def test_cpuid_names_xen_and_its_msr() -> None:
    code = (
        f"mov eax, 0x40000000; cpuid; mov r8, rax; mov eax, 0x40000002; mov r9, rbx; cpuid; {OFF}"
    )
    with VM(elf64(code), memory="4M", dialects="xen") as vm:
        vm.run()
        assert struct.pack("<2I", vm.regs.r9, 0)[:4] == b"XenV"
        assert vm.regs.r8 == 0x4000_0005
        assert (vm.regs.rax, vm.regs.rbx) == (1, 0x4000_0000)


@pytest.mark.parametrize("word", ["xen,+steal_time", "kvm,xen"])
def test_it_stands_alone(word: str) -> None:
    with pytest.raises(UsageError, match="xen"):
        VM(elf64(OFF), memory="4M", dialects=word)


BAD = 0x1234_5678_9000
CASES: list[tuple[Number, bytes, int]] = [
    ((Call.XEN_VERSION, 0), b"", 4 << 16 | 20),
    ((Call.XEN_VERSION, 6, DATA), struct.pack("<II", 0, 0), 0),
    ((Call.XEN_VERSION, 6, DATA), struct.pack("<II", 1, 0), -Errno.INVAL),
    ((Call.XEN_VERSION, 6, BAD), b"", -Errno.FAULT),
    ((Call.HVM_OP, 1, DATA), param(1), 0), ((Call.HVM_OP, 1, DATA), param(40), -Errno.INVAL),
    ((Call.HVM_OP, 1, DATA), param(1, domain=5), -Errno.SRCH),
    ((Call.HVM_OP, 1, BAD), b"", -Errno.FAULT),
    ((Call.HVM_OP, 0, DATA), param(1, 7), -Errno.PERM),
    ((Call.HVM_OP, 0, DATA), param(0, 2 << 56 | 0xF3), 0),
    ((Call.HVM_OP, 23, DATA), struct.pack("<II", 0, 0xF3), 0),
    ((Call.HVM_OP, 23, DATA), struct.pack("<II", 0, 3), -Errno.INVAL),
    ((Call.HVM_OP, 23, DATA), struct.pack("<II", 9, 0xF3), -Errno.NOENT),
    ((Call.HVM_OP, 99, DATA), b"", -Errno.NOSYS),
    ((Call.MEMORY_OP, 7, DATA), physmap(0, 0, PAGES >> 12), 0),
    ((Call.MEMORY_OP, 7, DATA), physmap(0, 1, PAGES >> 12), -Errno.INVAL),
    ((Call.MEMORY_OP, 7, DATA), physmap(3, 0, PAGES >> 12), -Errno.INVAL),
    ((Call.MEMORY_OP, 7, DATA), physmap(1, 32, PAGES >> 12), -Errno.INVAL),
    ((Call.MEMORY_OP, 7, DATA), physmap(0, 0, 1 << 40), -Errno.INVAL),
    ((Call.MEMORY_OP, 7, DATA), physmap(0, 0, 1, domain=3), -Errno.SRCH),
    ((Call.MEMORY_OP, 15, DATA), struct.pack("<H6xQ", SELF, 77), -Errno.INVAL),
    ((Call.MEMORY_OP, 3, DATA), struct.pack("<H6x", SELF), 4096),
    ((Call.MEMORY_OP, 3, DATA), struct.pack("<H6x", 4), -Errno.SRCH),
    ((Call.MEMORY_OP, 40, DATA), b"", -Errno.NOSYS),
    ((Call.VCPU_OP, 10, 0, DATA), struct.pack("<QII", DATA >> 12, 4080, 0), -Errno.INVAL),
    ((Call.VCPU_OP, 10, 0, DATA), struct.pack("<QII", 1 << 30, 0, 0), -Errno.INVAL),
    ((Call.VCPU_OP, 10, 0, DATA), struct.pack("<QII", DATA >> 12, 256, 0), 0),
    ((Call.VCPU_OP, 3, 7, DATA), b"", -Errno.NOENT), ((Call.VCPU_OP, 3, 0, DATA), b"", 1),
    ((Call.VCPU_OP, 8, 0, DATA), struct.pack("<QI4x", 0, 1), -Errno.TIME),
    ((Call.VCPU_OP, 6, 0, DATA), struct.pack("<Q", 5), -Errno.INVAL),
    ((Call.VCPU_OP, 99, 0, DATA), b"", -Errno.NOSYS),
    ((Call.EVENT_CHANNEL_OP, 6, DATA), struct.pack("<HHI", SELF, 0, 0), 0),
    ((Call.EVENT_CHANNEL_OP, 4, DATA), struct.pack("<I", 900), -Errno.INVAL),
    ((Call.GRANT_TABLE_OP, 6, DATA, 1), struct.pack("<H2xIIh2x", SELF, 0, 0, 0), 0),
    ((Call.SCHED_OP, 3, DATA), struct.pack("<QI4xQ", DATA, 200, 0), -Errno.INVAL),
    ((Call.SCHED_OP, 99, DATA), b"", -Errno.NOSYS), ((Call.SYSCTL, 0), b"", -Errno.PERM),
    ((63, 0), b"", -Errno.NOSYS),
]  # fmt: skip


@pytest.mark.parametrize(("call", "data", "answer"), CASES)
def test_a_call_and_what_it_returns(call: Number, data: bytes, answer: int) -> None:
    with Guest(1) as guest:
        guest.put(0, data)
        found, result = guest.run([call])
        assert (found, result.reason) == ([answer], "halted")


def test_a_timer_reaches_the_guest_as_a_vector_and_a_bit() -> None:
    with Guest(5) as guest:
        upcall = guest.put(0, struct.pack("<II", 0, 0x51))
        shared = guest.put(16, physmap(0, 0, PAGES >> 12))
        virq = guest.put(48, struct.pack("<III", 0, 0, 0))
        calls: list[Number] = [
            (Call.HVM_OP, 23, upcall), (Call.MEMORY_OP, 7, shared),
            (Call.EVENT_CHANNEL_OP, 1, virq), (Call.SET_TIMER_OP, 1), (Call.SCHED_OP, 0),
        ]  # fmt: skip
        guest.vm.vcpus[0].lapic.write_register(Reg.SVR, 0x1FF)
        found, _ = guest.run(calls)
        assert found == [0] * 5
        assert guest.xen.ports.is_pending(3)
        at = guest.xen.places.page(0)
        assert guest.vm.memory.ram.view[at] == 1  # vcpu_info[0].evtchn_upcall_pending
        assert guest.vm.vcpus[0].lapic.page.highest(Reg.IRR) == 0x51


def test_shared_info_is_where_the_guest_wants_it_and_ram_comes_back() -> None:
    with Guest(2) as guest:
        guest.vm.memory.write(PAGES, b"the guest's own")
        calls: list[Number] = [
            (Call.MEMORY_OP, 7, guest.put(0, physmap(0, 0, PAGES >> 12))),
            (Call.MEMORY_OP, 15, guest.put(64, struct.pack("<H6xQ", SELF, PAGES >> 12))),
        ]
        before = guest.vm.snapshot()
        found, _ = guest.run(calls)
        assert found == [0, 0]
        assert guest.vm.memory.ept.entry(PAGES)[0] >> 12 == PAGES >> 12
        guest.vm.restore(before)
        assert (PAGES >> 12) not in guest.xen.places.mapped


@pytest.mark.parametrize("seed", range(3))
def test_random_calls_end_with_a_reason(seed: int) -> None:
    dice = random.Random(seed)
    some = [
        0,
        1,
        2,
        7,
        15,
        40,
        SELF,
        DATA,
        DATA + 8,
        PAGES,
        PAGES >> 12,
        BAD,
        (1 << 64) - 1,
        1 << 63,
    ]
    with Guest(1500) as guest:
        words = [dice.choice((*some, dice.getrandbits(64))) for _ in range(512)]
        guest.put(0, struct.pack("<512Q", *words))
        calls: list[Number] = []
        while len(calls) < 1500:
            call = (dice.randrange(64), *(dice.choice(some) for _ in range(6)))
            if call[:2] != (Call.SCHED_OP, 2):
                calls.append(call)
        _, result = guest.run(calls)
        assert result.reason in ("poweroff", "triple_fault", "halted", "limit")


def test_a_shutdown_does_not_come_back() -> None:
    guest = Guest(2)
    reason = guest.put(0, bytes(4))
    results, end = guest.run([(Call.SCHED_OP, 2, reason), (Call.XEN_VERSION, 0, 0)])
    assert (end.status, end.reason) == (0, "poweroff")
    assert results[1] == 0, "the version was not asked for"
