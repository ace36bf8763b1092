"""The virtual APIC in C against the readable one: the same vectors, exits and registers."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodel.arch.exits import ExitReason
from hwmodel.arch.vmcs import Field
from hwmodel.vmx.virtual_apic import ApicExit, VirtualApicTwin
from tests.bare import CODE, Bare

PAGE, DESCRIPTOR, BITMAP, RECORD = 0x30_0000, 0x30_1000, 0x30_2000, 0x30_3000
VTPR, VPPR, VISR, VIRR = PAGE + 0x80, PAGE + 0xA0, PAGE + 0x100, PAGE + 0x200
HANDLERS = CODE + 0x1000
NOTIFICATION = 0xF2
VECTORS = st.integers(0, 255)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("tpr"), VECTORS),
        st.tuples(st.just("cr8"), st.integers(0, 15)),
        st.tuples(st.just("ipi"), VECTORS),
        st.tuples(st.just("ipi"), st.integers(0x20, 0x6F)),
        st.tuples(st.just("ipi"), st.integers(0, 31)),
        st.tuples(st.just("end"), st.just(0)),
        st.tuples(st.just("post"), st.integers(16, 255)),
        st.tuples(st.just("open"), st.just(0)),
    ),
    max_size=12,
)


@dataclass(frozen=True)
class Start:
    """What stands in the page and the VMCS at first."""

    tpr: int
    in_service: frozenset[int]
    requested: frozenset[int]
    eoi_exits: frozenset[int]


SETS = st.frozensets(st.integers(16, 255), max_size=4)
STARTS = st.builds(Start, VECTORS, SETS, SETS, st.frozensets(VECTORS, max_size=40))


class Machine:
    """A guest in x2APIC mode whose handlers write down their vector and halt."""

    def __init__(self) -> None:
        self.bare = Bare()
        bare = self.bare
        bare.vmcs[Field.VIRTUAL_APIC_PAGE_ADDR] = PAGE
        bare.vmcs[Field.MSR_BITMAP] = BITMAP
        bare.vmcs[Field.POSTED_INTR_NV] = NOTIFICATION
        bare.vmcs[Field.POSTED_INTR_DESC_ADDR] = DESCRIPTOR
        bare.vmcs[Field.PIN_BASED_VM_EXEC_CONTROL] |= 1 | 1 << 7
        bare.vmcs[Field.VM_EXIT_CONTROLS] |= 1 << 15
        bare.control(use_tpr_shadow=1, use_msr_bitmaps=1)
        bare.control2(
            virtualize_x2apic_mode=1, apic_register_virtualization=1, virtual_interrupt_delivery=1
        )
        for vector in range(256):
            bare.gate(vector, HANDLERS + 4 * vector)
            bare.load("hlt", HANDLERS + 4 * vector)

    def put(self, start: Start) -> VirtualApicTwin:
        """Lay out the start in both."""
        bare = self.bare
        bare.poke(PAGE, bytes(0x1000))
        bare.poke(VTPR, bytes([start.tpr]))
        for bank, vectors in ((VISR, start.in_service), (VIRR, start.requested)):
            for vector in vectors:
                at = bank + vector // 32 * 16 + vector % 32 // 8
                bare.poke(at, bytes([bare.peek(at, 1) | 1 << vector % 8]))
        rvi, svi = max(start.requested, default=0), max(start.in_service, default=0)
        bare.vmcs[Field.GUEST_INTR_STATUS] = svi << 8 | rvi
        for n in range(4):
            word = sum(1 << v % 64 for v in start.eoi_exits if v // 64 == n)
            bare.vmcs[Field(Field.EOI_EXIT_BITMAP0 + 2 * n)] = word
        return VirtualApicTwin(
            start.tpr, 0, set(start.in_service), set(start.requested), rvi, svi, start.eoi_exits
        )

    def registers(self) -> tuple[int, int, set[int], set[int], int]:
        """What the page and the VMCS say now."""
        sets = [
            {v for v in range(256) if self.bare.peek(bank + v // 32 * 16, 4) >> v % 32 & 1}
            for bank in (VISR, VIRR)
        ]
        status = self.bare.vmcs[Field.GUEST_INTR_STATUS]
        return self.bare.peek(VTPR, 4), self.bare.peek(VPPR, 4), *sets, status  # type: ignore[return-value]

    def step(self, what: str, value: int) -> ApicExit | int | None:
        """Do one thing with interrupts off, or open the window for one."""
        bare, code = self.bare, "cli; "
        if what == "post":
            bare.poke(DESCRIPTOR + value // 8, bytes([1 << value % 8]))
            bare.poke(DESCRIPTOR + 32, b"\1")
            bare.pcpu.raise_interrupt(NOTIFICATION)
        elif what == "open":
            code = "sti; nop; nop; "
        elif what == "cr8":
            code += f"mov eax, {value}; mov cr8, rax; "
        else:
            msr = {"tpr": 0x808, "ipi": 0x83F, "end": 0x80B}[what]
            code += f"mov ecx, {msr:#x}; mov eax, {value}; xor edx, edx; wrmsr; "
        bare.regs.rflags, bare.regs.rip, bare.regs.rsp = 2, CODE, 0x9000
        vmexit = bare.run(code + "vmcall")
        if vmexit.name == "HLT":
            return (vmexit.rip - HANDLERS) // 4
        if vmexit.name == "VMCALL":
            return None
        return ApicExit(ExitReason(vmexit.reason), vmexit.qualification)


def twin_step(twin: VirtualApicTwin, what: str, value: int) -> ApicExit | int | None:
    twin.enter()
    if what == "tpr":
        twin.write_tpr(value)
    elif what == "cr8":
        twin.write_tpr(value << 4)
    elif what == "ipi":
        return twin.self_ipi(value)
    elif what == "end":
        return twin.end()
    elif what == "post":
        twin.post([value])
    else:
        return twin.deliver()
    return None


MACHINE: list[Machine] = []


@settings(max_examples=250, deadline=None)
@given(STARTS, STEPS)
def test_both_do_the_same(start: Start, steps: list[tuple[str, int]]) -> None:
    if not MACHINE:
        MACHINE.append(Machine())
    machine = MACHINE[0]
    twin = machine.put(start)
    for what, value in steps:
        assert machine.step(what, value) == twin_step(twin, what, value), (what, value)
        status = twin.svi << 8 | twin.rvi
        expected = (twin.tpr, twin.ppr, twin.in_service, twin.requested, status)
        assert machine.registers() == expected, (what, value)
