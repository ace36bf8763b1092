"""Event delivery in C against the readable one: random gates, segments, stacks and privileges."""

import struct
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodel.arch.events import EventType, InterruptionInformation, Vector
from hwmodel.arch.vmcs import Field
from hwmodel.vmx.delivery import (
    Before,
    Delivered,
    Event,
    Faulted,
    Table,
    TaskSwitches,
    deliver,
)
from tests.bare import DATA, GDT, IDT, TSS, USER_CS, USER_DATA, Bare, Mode

GDT_LIMIT, HANDLER, USER_CS32 = 0x9F, 0xA000, 0x30 | 3
FIRST = 0x40  # selectors from here on are drawn
TR_SELECTOR = 0x38
STACKS = (0x8000, 0x8108, 0xC004, 0xD00D)
TYPES = (EventType.EXTERNAL_INTERRUPT, EventType.HARDWARE_EXCEPTION, EventType.SOFTWARE_INTERRUPT,
         EventType.SOFTWARE_EXCEPTION, EventType.NMI)  # fmt: skip


def odd(random: Random, chance: float = 0.12) -> bool:
    return random.random() < chance


def descriptor(random: Random, wide: bool) -> int:
    """Draw a flat segment: mostly code of ring 0, now and then anything."""
    dpl = random.choice((0, 0, 3, random.randrange(4)))
    kind = random.choice((0x1B, 0x1F, 0x13, 0x19, 0x11) if odd(random, 0.5) else (0x1B, 0x1B, 0x13))
    size = random.choice((0xC, 0xA, 0xE, 0x8)) if odd(random) else (0xA if wide else 0xC)
    access = kind | dpl << 5 | (not odd(random)) << 7
    limit = 0xF if not odd(random, 0.05) or size & 0x2 else 0
    low = 0xFFFF if limit else 0x5FFF
    flags = size if limit else size & 7
    return low | access << 40 | (limit | flags << 4) << 48


def gate(random: Random, wide: bool) -> int:
    """Draw a gate that leads to the handler, or nearly."""
    kind = random.choice((14, 15)) if wide else random.choice((6, 7, 14, 15))
    kind = random.randrange(16) if odd(random) else kind
    selector = random.randrange(FIRST, GDT_LIMIT + 1, 8) | random.randrange(4)
    if odd(random, 0.08):
        selector = random.choice((0, 2, 0xA0, 0xF8, 0x1000))
    ist = random.choice((0, 0, 0, 1, 2, 7)) if wide else 0
    dpl = random.choice((0, 3, 3))
    access = kind | dpl << 5 | (not odd(random)) << 7 | odd(random, 0.03) << 4
    return HANDLER | selector << 16 | ist << 32 | access << 40


@dataclass
class Machine:
    """A guest in one mode, and what is drawn into its tables."""

    mode: Mode

    def __post_init__(self) -> None:
        self.bare = Bare(self.mode)
        bare = self.bare
        bare.poke(HANDLER, bytes.fromhex("0f01c1"))  # VMCALL, in any mode
        bare.vmcs[Field.EXCEPTION_BITMAP] = 0xFFFF_FFFF
        if self.mode is not Mode.REAL:
            bare.word(GDT + (USER_CS32 & ~3), 0x00CF_FB00_0000_FFFF)
            bare.vmcs[Field.GUEST_GDTR_LIMIT] = GDT_LIMIT
            bare.vmcs[Field.GUEST_TR_SELECTOR] = TR_SELECTOR
        self.image = bare.vmcs.save()

    def put(self, seed: int) -> tuple[Before, Event]:
        """Draw everything."""
        random, bare, vmcs = Random(seed), self.bare, self.bare.vmcs
        vmcs.restore(self.image)
        bare.pcpu.forget(vmcs)
        event = self._event(random)
        bare.regs.rsp = random.choice((0x9000, 0x9004, 0x8FF7))
        flags = random.choice((0, 0, 1 << 14, 1 << 16, 1 << 18, 1 << 10, 1 << 8, 3 << 12))
        bare.regs.rflags = 2 | 1 << 9 | flags
        if self.mode is Mode.REAL:
            return self._real(random, event), event
        wide = self.mode is Mode.LONG
        cpl = random.choice((0, 3))
        if cpl:
            self._user(wide)
        for selector in range(FIRST, GDT_LIMIT + 1, 8):
            bare.word(GDT + selector, descriptor(random, wide))
        size = 16 if wide else 8
        at = IDT + event.vector * size
        bare.word(at, gate(random, wide))
        if wide:
            bare.word(at + 8, 0)
        limit = event.vector * size + random.randrange(size) if odd(random, 0.05) else 0xFFF
        vmcs[Field.GUEST_IDTR_LIMIT] = limit
        self._tss(random, wide)
        return self._before(cpl), event

    def _user(self, wide: bool) -> None:
        cs, rights = (USER_CS, 0xA0FB) if wide else (USER_CS32, 0xC0FB)
        self.bare._segment("CS", cs, 0, 0xFFFF_FFFF, rights)
        self.bare._segment("SS", USER_DATA, 0, 0xFFFF_FFFF, 0xC0F3)

    def _tss(self, random: Random, wide: bool) -> None:
        bare = self.bare
        bare.poke(TSS, bytes(0x68))
        if wide:
            for offset in (*range(4, 28, 8), *range(0x24, 0x5C, 8)):
                bare.word(TSS + offset, random.choice(STACKS))
        else:
            for level in range(3):
                ss = random.choice((DATA, DATA, random.randrange(FIRST, GDT_LIMIT, 8)))
                ss |= random.choice((0, level, level))
                ss = random.choice((0, 0x1000)) if odd(random, 0.06) else ss
                bare.poke(TSS + 4 + 8 * level, struct.pack("<IH", random.choice(STACKS), ss))
        bare.vmcs[Field.GUEST_TR_LIMIT] = 0x67

    def _real(self, random: Random, event: Event) -> Before:
        self.bare.poke(event.vector * 4, struct.pack("<HH", HANDLER & 0xFFF0, 0))
        self.bare.vmcs[Field.GUEST_IDTR_LIMIT] = event.vector * 4 + random.choice((3, 3, 2, 900))
        return self._before(0)

    def _before(self, cpl: int) -> Before:
        vmcs, regs = self.bare.vmcs, self.bare.regs
        mode = {Mode.REAL: "real", Mode.PROTECTED: "protected", Mode.LONG: "long"}[self.mode]
        return Before(
            mode, cpl, vmcs[Field.GUEST_CS_SELECTOR], vmcs[Field.GUEST_SS_SELECTOR], regs.rip,
            regs.rsp, regs.rflags,
            Table(vmcs[Field.GUEST_IDTR_BASE], vmcs[Field.GUEST_IDTR_LIMIT]),
            Table(vmcs[Field.GUEST_GDTR_BASE], vmcs[Field.GUEST_GDTR_LIMIT]),
            Table(vmcs[Field.GUEST_TR_BASE], vmcs[Field.GUEST_TR_LIMIT], TR_SELECTOR),
        )  # fmt: skip

    def _event(self, random: Random) -> Event:
        kind = random.choice(TYPES)
        if kind is EventType.NMI:
            return Event(2, kind)
        if kind is EventType.SOFTWARE_EXCEPTION:
            return Event(random.choice((3, 4)), kind, None, 1)
        if kind is EventType.SOFTWARE_INTERRUPT:
            return Event(random.randrange(0x20, 0xF0), kind, None, 2)
        if kind is EventType.EXTERNAL_INTERRUPT:
            return Event(random.randrange(0x20, 0xF0), kind)
        vector = random.choice((0, 5, 6, 7, 13, 11, 12, 16, 18, 19))
        has_error = vector in (11, 12, 13) and self.mode is not Mode.REAL
        return Event(vector, kind, random.randrange(0x10000) if has_error else None)

    def engine(self, event: Event) -> Delivered | Faulted | TaskSwitches:
        """Inject it and enter; the handler exits at once."""
        vmcs = self.bare.vmcs
        info = InterruptionInformation.of(
            vector=event.vector, type=event.type, has_error_code=event.error is not None, valid=1
        )
        vmcs[Field.VM_ENTRY_INTR_INFO_FIELD] = int(info)
        vmcs[Field.VM_ENTRY_EXCEPTION_ERROR_CODE] = event.error or 0
        vmcs[Field.VM_ENTRY_INSTRUCTION_LEN] = event.length
        vmexit = self.bare.enter()
        assert not vmexit.is_entry_failure, vmexit
        if vmexit.name == "TASK_SWITCH":
            return TaskSwitches(vmexit.qualification & 0xFFFF)
        if vmexit.name == "EXCEPTION_NMI":
            assert vmexit.idt_vectoring_info & 0x7FF == event.vector | event.type << 8
            return Faulted(Vector(vmexit.interruption_info & 0xFF), vmexit.interruption_error)
        assert vmexit.name == "VMCALL", vmexit
        regs = self.bare.regs
        return Delivered(
            vmcs[Field.GUEST_CS_SELECTOR], vmcs[Field.GUEST_SS_SELECTOR], regs.rip, regs.rsp,
            regs.rflags, 0, (),
        )  # fmt: skip


MACHINES: dict[Mode, Machine] = {}


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.name.lower())
@settings(max_examples=500, deadline=None)
@given(seed=st.integers(0, 1 << 40))
def test_both_deliver_the_same(mode: Mode, seed: int) -> None:
    if mode not in MACHINES:
        MACHINES[mode] = Machine(mode)
    machine = MACHINES[mode]
    before, event = machine.put(seed)
    expected, seen = deliver(before, event, machine.bare.peek), machine.engine(event)
    if isinstance(expected, TaskSwitches) and isinstance(seen, Faulted):
        assert seen.vector in (Vector.GP, Vector.NP, Vector.TS)  # it names no task that could run
        assert seen.error & ~7 == expected.selector & ~7
        return
    if not isinstance(expected, Delivered):
        assert seen == expected
        return
    assert isinstance(seen, Delivered)
    unit, pushed = expected.unit, expected.pushed
    there = tuple(machine.bare.peek(seen.rsp + n * unit, unit) for n in range(len(pushed)))
    assert (seen.cs, seen.ss, seen.rip) == (expected.cs, expected.ss, expected.rip)
    assert (seen.rsp, seen.rflags, there) == (expected.rsp, expected.rflags, pushed)
