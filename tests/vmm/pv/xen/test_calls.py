"""Hypercalls: what each does, and Xen's error for each way to get it wrong.

Judged by Xen's public headers and xen/arch/x86/mm.c, common/{event_channel,grant_table,domain}.c.
"""

import struct

import pytest

from tests.vmm.pv.xen.audit import audit
from tests.vmm.pv.xen.calls import Call, CallGuest, linear, results
from vmm.pv.xen.abi import HOLE_START, Errno
from vmm.pv.xen.abi import Call as N

BAD, HOLE = 0x1234_5000, HOLE_START + 0x1000
SELF = 0x7FF0

WITHOUT_DATA: list[tuple[int, tuple[int, ...], int]] = [
    (N.SET_TRAP_TABLE, (0,), 0), (N.SET_TRAP_TABLE, (BAD,), -Errno.FAULT),
    (N.SET_TRAP_TABLE, (HOLE,), -Errno.FAULT),
    (N.MMU_UPDATE, (BAD, 1, 0, SELF), -Errno.FAULT), (N.MMU_UPDATE, (0, 0, 0, SELF), 0),
    (N.MMU_UPDATE, (BAD, 1, 0, 77), -Errno.SRCH),
    (N.SET_GDT, (BAD, 512), -Errno.FAULT), (N.SET_GDT, (BAD, 7169), -Errno.INVAL),
    (N.SET_GDT, (0, 0), 0),
    (N.STACK_SWITCH, (0xE02B, linear(0x8000)), 0),
    (N.SET_CALLBACKS, (1 << 62, 0, 0), -Errno.INVAL),
    (N.FPU_TASKSWITCH, (1,), 0), (N.FPU_TASKSWITCH, (0,), 0),
    (N.PLATFORM_OP, (BAD,), -Errno.PERM),
    (N.SET_DEBUGREG, (0, HOLE), -Errno.PERM), (N.SET_DEBUGREG, (4, 0), -Errno.INVAL),
    (N.SET_DEBUGREG, (1, 0x1000), 0), (N.GET_DEBUGREG, (1,), 0x1000),
    (N.GET_DEBUGREG, (5,), -Errno.INVAL), (N.GET_DEBUGREG, (6,), 0xFFFF_0FF0),
    (N.UPDATE_DESCRIPTOR, (3, 0), -Errno.INVAL), (N.UPDATE_DESCRIPTOR, (1 << 40, 0), -Errno.INVAL),
    (N.MEMORY_OP, (3, BAD), -Errno.FAULT), (N.MEMORY_OP, (9, 0), -Errno.NOSYS),
    (N.MULTICALL, (BAD, 1), -Errno.FAULT), (N.MULTICALL, (BAD, 0), 0),
    (N.UPDATE_VA_MAPPING, (BAD, 0, 0), -Errno.INVAL),
    (N.UPDATE_VA_MAPPING, (HOLE, 0, 0), -Errno.INVAL),
    (N.SET_TIMER_OP, (0,), 0),
    (N.XEN_VERSION, (0,), 4 << 16 | 20), (N.XEN_VERSION, (1, BAD), -Errno.FAULT),
    (N.XEN_VERSION, (1, HOLE), -Errno.FAULT), (N.XEN_VERSION, (7, 0), 4096),
    (N.XEN_VERSION, (99,), -Errno.NOSYS),
    (N.CONSOLE_IO, (0, 4, BAD), -Errno.FAULT), (N.CONSOLE_IO, (7,), -Errno.NOSYS),
    (N.GRANT_TABLE_OP, (2, BAD, 1), -Errno.FAULT), (N.GRANT_TABLE_OP, (2, BAD, 2), -Errno.INVAL),
    (N.GRANT_TABLE_OP, (99, 0, 1), -Errno.NOSYS),
    (N.VM_ASSIST, (0, 4), 0), (N.VM_ASSIST, (2, 4), -Errno.NOSYS),
    (N.VM_ASSIST, (0, 63), -Errno.INVAL),
    (N.UPDATE_VA_MAPPING_OTHERDOMAIN, (0,), -Errno.NOSYS),
    (N.VCPU_OP, (3, 0), 1), (N.VCPU_OP, (3, 1), -Errno.NOENT),
    (N.VCPU_OP, (0, 0, BAD), -Errno.EXIST),
    (N.VCPU_OP, (5, 0, BAD), -Errno.FAULT), (N.VCPU_OP, (99, 0), -Errno.NOSYS),
    (N.SET_SEGMENT_BASE, (0, 1 << 62), -Errno.INVAL), (N.SET_SEGMENT_BASE, (0, 0x1000), 0),
    (N.SET_SEGMENT_BASE, (9, 0), -Errno.INVAL), (N.SET_SEGMENT_BASE, (3, 0xFFFF), 0),
    (N.MMUEXT_OP, (BAD, 1, 0, SELF), -Errno.FAULT), (N.MMUEXT_OP, (0, 0, 0, 9), -Errno.SRCH),
    (N.SCHED_OP, (0,), 0), (N.SCHED_OP, (4, 0), -Errno.PERM), (N.SCHED_OP, (99,), -Errno.NOSYS),
    (N.CALLBACK_OP, (0, BAD), -Errno.FAULT), (N.CALLBACK_OP, (7, 0), -Errno.NOSYS),
    (N.EVENT_CHANNEL_OP, (9, BAD), -Errno.FAULT), (N.EVENT_CHANNEL_OP, (11, 0), -Errno.NOSYS),
    (N.PHYSDEV_OP, (6, BAD), -Errno.FAULT), (N.PHYSDEV_OP, (99,), -Errno.NOSYS),
    (N.HVM_OP, (0,), -Errno.NOSYS), (N.SYSCTL, (0,), -Errno.PERM), (N.DOMCTL, (0,), -Errno.PERM),
    (63, (), -Errno.NOSYS), (1 << 40, (), -Errno.NOSYS), (1 << 63, (), -Errno.NOSYS),
]  # fmt: skip


def test_numbers_and_pointers() -> None:
    """All in one guest: errors leave nothing behind that the next call would see."""
    found = results([Call(number, arguments) for number, arguments, _ in WITHOUT_DATA])
    wanted = [result for _, _, result in WITHOUT_DATA]
    assert [
        (case[:2], got) for case, got, want in zip(WITHOUT_DATA, found, wanted, strict=True)
        if got != want
    ] == []  # fmt: skip


def extended(command: int, one: int = 0, two: int = 0) -> bytes:
    return struct.pack("<QQQ", command, one, two)


def mmuext_of(guest: CallGuest, *operations: bytes) -> list[Call]:
    places = [guest.put(24 * n, op) for n, op in enumerate(operations)]
    return [Call(N.MMUEXT_OP, (at, 1, 0, SELF)) for at in places]


TABLE, OTHER = 0x10_0000, 0x10_1000


def read_only(guest: CallGuest, offset: int) -> Call:
    entry = guest.mfn(offset) << 12 | 0x65
    return Call(N.UPDATE_VA_MAPPING, (linear(offset), entry, 2))


def test_a_table_is_pinned_when_nothing_maps_it_writable() -> None:
    with CallGuest(6) as guest:
        pin = mmuext_of(guest, extended(0, guest.mfn(TABLE)), extended(4, guest.mfn(TABLE)))
        writable = Call(N.UPDATE_VA_MAPPING, (linear(TABLE), guest.mfn(TABLE) << 12 | 0x67, 2))
        calls = [pin[0], read_only(guest, TABLE), pin[0], pin[0], writable, pin[1]]
        found, result = guest.run(calls)
        assert (result.status, result.reason) == (0, "poweroff")
        errors = [-Errno.INVAL, 0, 0, -Errno.INVAL, -Errno.BUSY, 0]
        assert found == errors
        assert guest.engine.audit()[0] == 0
        rules = [breach.rule for breach in guest.engine.breaches()]
        assert len(rules) >= 3


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        (0x1 << 51 | 0x67, -Errno.PERM), ((1 << 52) - 4096 | 0x67, -Errno.INVAL),
        (0x80 | 0x67, -Errno.INVAL), (1 << 62 | 0x67, -Errno.INVAL), (0x18 | 0x67, -Errno.INVAL),
    ],
)  # fmt: skip
def test_an_entry_may_not_be(entry: int, error: int) -> None:
    with CallGuest(1) as guest:
        if entry < 1 << 12 or entry >> 62:
            entry |= guest.mfn(TABLE) << 12
        found, _ = guest.run([Call(N.UPDATE_VA_MAPPING, (linear(TABLE), entry, 0))])
        assert found == [error]
        assert guest.engine.audit()[0] == 0


def test_the_hypervisors_frames_and_slots_are_out_of_reach() -> None:
    with CallGuest(4) as guest:
        root = guest.vm.vcpus[0].regs.cr3
        xen = guest.engine.frames + 1  # its page of the GDT
        request = guest.put(0, struct.pack("<QQ", root + 8 * 260, 0))
        own_table = guest.put(16, struct.pack("<QQ", xen << 12, 0))
        calls = [
            Call(N.UPDATE_VA_MAPPING, (linear(TABLE), xen << 12 | 0x67, 0)),
            Call(N.UPDATE_VA_MAPPING, (linear(TABLE), xen << 12 | 0x65, 0)),
            Call(N.MMU_UPDATE, (request, 1, 0, SELF)),
            Call(N.MMU_UPDATE, (own_table, 1, 0, SELF)),
        ]
        found, _ = guest.run(calls)
        assert found == [-Errno.BUSY, -Errno.BUSY, -Errno.INVAL, -Errno.INVAL]
        assert (guest.engine.audit()[0], audit(guest)) == (0, [])


def test_a_multicall_gives_each_entry_its_result() -> None:
    with CallGuest(1) as guest:
        entries = [(N.XEN_VERSION, 0), (N.XEN_VERSION, 7), (99, 0), (N.VM_ASSIST, 0)]
        data = b"".join(struct.pack("<Qq6Q", n, 0x77, a, *[0] * 5) for n, a in entries)
        found, _ = guest.run([Call(N.MULTICALL, (guest.put(0, data), len(entries)))])
        assert found == [0]
        answers = [struct.unpack("<q", guest.get(64 * n + 8, 8))[0] for n in range(len(entries))]
        assert answers == [4 << 16 | 20, 4096, -Errno.NOSYS, 0]


def test_frames_go_back_and_come_again() -> None:
    with CallGuest(5) as guest:
        mfn = guest.mfn(OTHER)
        extent = guest.put(0x200, struct.pack("<Q", mfn))
        reservation = guest.put(0x100, struct.pack("<QQIIH6x", extent, 1, 0, 0, SELF))
        domain = guest.put(0x180, struct.pack("<H6x", SELF))
        calls = [
            Call(N.UPDATE_VA_MAPPING, (linear(OTHER), 0, 2)),
            Call(N.MEMORY_OP, (1, reservation)),
            Call(N.MEMORY_OP, (3, domain)),
            Call(N.UPDATE_VA_MAPPING, (linear(OTHER), mfn << 12 | 0x67, 2)),
            Call(N.MEMORY_OP, (0, reservation)),
        ]
        found, _ = guest.run(calls)
        assert found == [0, 1, guest.engine.frames - 1, -Errno.BUSY, 1]
        assert struct.unpack("<Q", guest.get(0x200, 8)) == (mfn,)
        assert guest.engine.audit()[0] == 0


def test_event_channels() -> None:
    with CallGuest(8) as guest:
        unbound = guest.put(0, struct.pack("<HHI", SELF, SELF, 0))
        virq = guest.put(16, struct.pack("<III", 0, 0, 0))
        port3 = guest.put(32, struct.pack("<I", 3))
        port9 = guest.put(40, struct.pack("<I", 900))
        inter = guest.put(48, struct.pack("<H2xII", SELF, 3, 0))
        calls = [
            Call(N.EVENT_CHANNEL_OP, (6, unbound)), Call(N.EVENT_CHANNEL_OP, (1, virq)),
            Call(N.EVENT_CHANNEL_OP, (1, virq)), Call(N.EVENT_CHANNEL_OP, (0, inter)),
            Call(N.EVENT_CHANNEL_OP, (4, port3)), Call(N.EVENT_CHANNEL_OP, (4, port9)),
            Call(N.EVENT_CHANNEL_OP, (3, port3)), Call(N.EVENT_CHANNEL_OP, (3, port3)),
        ]  # fmt: skip
        found, _ = guest.run(calls)
        bad = -Errno.INVAL
        assert found == [0, 0, -Errno.EXIST, 0, 0, bad, 0, bad]
        assert struct.unpack("<I", guest.get(4, 4)) == (3,)
        assert guest.domain.ports.is_pending(5)  # the other end of 3
