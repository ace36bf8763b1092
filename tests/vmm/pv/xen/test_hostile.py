"""What a hostile PV guest tries: forged frames, pointers into the hypervisor's hole, floods."""

import struct

import keystone
import pytest

from tests.vmm.pv.xen.audit import audit
from tests.vmm.pv.xen.calls import DATA, Call, CallGuest, image, linear
from tests.vmm.pv.xen.frames import FRAME_BYTES, FrameGuest, random_frames
from vmm import VM
from vmm.pv.xen.abi import HOLE_END, HOLE_START, Errno
from vmm.pv.xen.abi import Call as N

SELF, MASK64 = 0x7FF0, (1 << 64) - 1
KERNEL_CS, KERNEL_SS, IF = 0xE033, 0xE02B, 0x202


@pytest.mark.parametrize("seed", range(4))
def test_forged_frames(seed: int) -> None:
    assert random_frames(seed, 1500) > 0


def _one(frame: dict[str, int]) -> tuple[str, str, list[int]]:
    """Return by one frame; how the run ended, and the rules that were broken."""
    words = {"rip": 0, "cs": KERNEL_CS, "flags": IF, "rsp": linear(0xC000), "ss": KERNEL_SS} | frame
    with FrameGuest(1) as guest:
        words["rip"] = words["rip"] or guest.next
        result = guest.run([(0, 0, 0, 0, *(words[k] for k in ("rip", "cs", "flags", "rsp", "ss")))])
        assert (guest.engine.audit()[0], audit(guest)) == (0, [])
        return result.reason, result.message, [b.rule for b in guest.engine.breaches()]


@pytest.mark.parametrize(
    "frame",
    [
        {"cs": 0xE02B}, {"cs": 0x13}, {"cs": 0xFFFB}, {"rip": 1 << 47, "cs": 0xE033},
        {"rip": 0xFFFF_7FFF_FFFF_F000, "cs": KERNEL_CS | 3}, {"cs": 0xE023, "rip": 1 << 32},
    ],
)  # fmt: skip
def test_what_no_processor_could_load_goes_to_the_failsafe_callback(
    frame: dict[str, int],
) -> None:
    """It is noted, and the guest goes on there: it powers off as if nothing had been."""
    reason, _, rules = _one(frame)
    assert reason == "poweroff"
    assert 7 in rules  # XEN_RULE_FRAME


def test_a_frame_that_cannot_be_read_ends_the_domain() -> None:
    code = f"mov eax, {int(N.IRET)}; movabs rsp, {{rsp}}; syscall; ud2"
    for rsp in (0x1234_5000, HOLE_START + 0x1000, HOLE_START - FRAME_BYTES + 8, MASK64 - 8):
        with _guest(code.format(rsp=hex(rsp))) as vm:
            result = vm.run()
            assert result.reason == "triple_fault"
            assert "iret's frame cannot be read" in result.message
            assert hex(rsp) in result.message


@pytest.mark.parametrize("rsp", [0x1234_5000, HOLE_START + 0x2000, HOLE_END - 8, 8])
def test_a_bounce_frame_never_reaches_the_hypervisor(rsp: int) -> None:
    """The kernel's stack is wherever it says; a trap there finds no room: a crash record."""
    with FrameGuest(1) as guest:
        before = guest.own_pages()
        result = guest.run([(0, 0, 0, 0, guest.pads[1], KERNEL_CS & ~3, IF, rsp, KERNEL_SS)])
        assert result.reason == "triple_fault"
        assert "the stack for a bounce frame cannot be written" in result.message
        assert guest.own_pages() == before


POINTERS: list[tuple[int, tuple[object, ...]]] = [
    (N.SET_TRAP_TABLE, ("P",)), (N.MMU_UPDATE, ("P", 1, 0, SELF)), (N.SET_GDT, ("P", 8)),
    (N.MEMORY_OP, (0, "P")), (N.MEMORY_OP, (1, "P")), (N.MEMORY_OP, (3, "P")),
    (N.MEMORY_OP, (5, "P")), (N.MULTICALL, ("P", 1)), (N.XEN_VERSION, (1, "P")),
    (N.XEN_VERSION, (5, "P")), (N.CONSOLE_IO, (0, 16, "P")), (N.GRANT_TABLE_OP, (2, "P", 1)),
    (N.GRANT_TABLE_OP, (6, "P", 1)), (N.GRANT_TABLE_OP, (8, "P", 1)),
    (N.GRANT_TABLE_OP, (10, "P", 1)), (N.VCPU_OP, (4, 0, "P")), (N.VCPU_OP, (5, 0, "P")),
    (N.VCPU_OP, (6, 0, "P")), (N.VCPU_OP, (8, 0, "P")), (N.VCPU_OP, (10, 0, "P")),
    (N.VCPU_OP, (13, 0, "P")), (N.MMUEXT_OP, ("P", 1, 0, SELF)), (N.SCHED_OP, (3, "P")),
    (N.CALLBACK_OP, (0, "P")), (N.EVENT_CHANNEL_OP, (0, "P")), (N.EVENT_CHANNEL_OP, (1, "P")),
    (N.EVENT_CHANNEL_OP, (3, "P")), (N.EVENT_CHANNEL_OP, (4, "P")), (N.EVENT_CHANNEL_OP, (5, "P")),
    (N.EVENT_CHANNEL_OP, (6, "P")), (N.EVENT_CHANNEL_OP, (7, "P")), (N.EVENT_CHANNEL_OP, (8, "P")),
    (N.EVENT_CHANNEL_OP, (9, "P")), (N.PHYSDEV_OP, (6, "P")), (N.PHYSDEV_OP, (7, "P")),
]  # fmt: skip


@pytest.mark.parametrize(
    "pointer", [HOLE_START, HOLE_START + 0x1000, HOLE_START - 1, HOLE_END - 1, MASK64, MASK64 - 3]
)
def test_no_pointer_into_the_hole_is_taken(pointer: int) -> None:
    """Its start, its inside, across its ends, and across the end of all addresses: EFAULT."""
    calls = [Call(n, tuple(pointer if a == "P" else a for a in args)) for n, args in POINTERS]  # type: ignore[misc]
    with CallGuest(len(calls)) as guest:
        view, first = guest.vm.memory.ram.view, guest.engine.frames + 1  # behind shared_info
        before = bytes(view[first * 4096 :])
        found, result = guest.run(calls)
        assert result.reason == "poweroff"
        wrong = [(c, got) for c, got in zip(POINTERS, found, strict=True) if got != -Errno.FAULT]
        assert wrong == []
        assert bytes(view[first * 4096 :]) == before


def test_what_is_returned_does_not_go_into_the_hole_either() -> None:
    """Structures that lie well and name a place in it."""
    with CallGuest(7) as guest:
        hole = HOLE_START + 0x3000
        setup = guest.put(0, struct.pack("<H2xIh6xQ", SELF, 1, 0, hole))
        extents = guest.put(0x40, struct.pack("<QQIIH6x", hole, 1, 0, 0, SELF))
        poll = guest.put(0x80, struct.pack("<QI4xQ", hole, 1, 0))
        time = guest.put(0xC0, struct.pack("<Q", hole))
        update = guest.put(0x100, struct.pack("<QQ", guest.mfn(0x10_0000) << 12, 0))
        entry = guest.put(0x140, struct.pack("<Qq6Q", N.XEN_VERSION, 0, 5, hole, *[0] * 4))
        view, first = guest.vm.memory.ram.view, guest.engine.frames + 1
        before = bytes(view[first * 4096 :])
        calls = [
            Call(N.GRANT_TABLE_OP, (2, setup, 1)), Call(N.MEMORY_OP, (0, extents)),
            Call(N.SCHED_OP, (3, poll)), Call(N.VCPU_OP, (13, 0, time)),
            Call(N.MMU_UPDATE, (update, 1, hole, SELF)), Call(N.MULTICALL, (entry, 1)),
            Call(N.VCPU_OP, (5, 0, time)),
        ]  # fmt: skip
        found, result = guest.run(calls)
        assert result.reason == "poweroff"
        fault = -Errno.FAULT
        assert found[0] == fault
        assert (found[1], found[2], found[3]) == (0, fault, fault)  # of memory_op: none done
        assert struct.unpack("<q", guest.get(0x148, 8)) == (fault,)
        assert bytes(view[first * 4096 :]) == before


def test_all_ports_are_taken_and_flooded() -> None:
    """ENOSPC when there is none left; each is sent to again and again, and given back."""
    ports = 4095 - 2  # 1 and 2 are of store and console
    binds, sends = 4100, 20_000
    with CallGuest(binds + sends + 1) as guest:
        ipi = guest.put(0, struct.pack("<II", 0, 0))
        at = [guest.put(64 + 4 * n, struct.pack("<I", 3 + n)) for n in range(ports)]
        calls = [Call(N.EVENT_CHANNEL_OP, (7, ipi))] * binds
        calls += [Call(N.EVENT_CHANNEL_OP, (4, at[n % ports])) for n in range(sends)]
        calls.append(Call(N.EVENT_CHANNEL_OP, (10, guest.put(16, struct.pack("<H", SELF)))))
        found, result = guest.run(calls)
        assert result.reason == "poweroff"
        assert found[:binds] == [0] * ports + [-Errno.NOSPC] * (binds - ports)
        assert set(found[binds:]) == {0}
        assert guest.domain.ports.channels == {}


def _guest(code: str) -> VM:
    engine = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)
    return VM(
        image(bytes(engine.asm(code)[0])), technique="pv", memory="16M", max_instructions=200_000
    )


_STORM = """
    mov eax, 4
    lea rdi, [rip + upcall]
    mov rsi, rdi
    xor edx, edx
    syscall
    mov eax, 32
    mov edi, 1
    movabs rsi, {virq}
    syscall
    mov eax, 32
    mov edi, 9
    movabs rsi, {port}
    syscall
again:
    mov eax, 15
    mov edi, 1
    syscall
    mov eax, 29
    mov edi, 1
    syscall
    jmp again
upcall:
    pop rcx
    pop r11
    push 0
    push rcx
    push r11
    push rax
    mov eax, 23
    syscall
"""


def test_a_storm_of_upcalls_that_nobody_acknowledges_is_the_guests_own() -> None:
    """Its timer is always past, its event stays pending: it makes no step; the run has a limit."""
    with _guest(_STORM.format(virq=hex(linear(0)), port=hex(linear(8)))) as vm:
        vm.memory.write(DATA, struct.pack("<III", 0, 0, 0))
        result = vm.run()
        assert result.reason == "limit"
        assert vm.domain is not None
        assert vm.domain.engine.counters()["upcalls"] > 10_000  # type: ignore[operator]
        assert vm.domain.engine.audit()[0] == 0
