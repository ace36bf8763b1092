"""The intercept decision in C against the readable one: random controls, masks and bitmaps."""

from dataclasses import dataclass
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodel.arch.controls import Primary, Secondary
from hwmodel.arch.exits import ExitReason as R
from hwmodel.arch.vmcs import Field
from hwmodel.vmx.intercept import (
    Attempt,
    Clts,
    Exits,
    Intercepts,
    Io,
    Lmsw,
    MovFromCr,
    MovToCr,
    MsrAccess,
    Plain,
    Raises,
)
from tests.bare import CODE, PD, PML4, STACK, Bare

IO_A, IO_B, MSRS, HANDLER = 0x30_0000, 0x30_1000, 0x30_2000, CODE + 0x1000
READ_ONLY, ABSENT = 0x20_0000, 0x4000_0000
CR0, CR4 = 0x8000_0031, 0x2620
TOGGLED = {0: (1, 2, 3, 16, 18, 29, 30), 4: (0, 1, 2, 3, 6, 7, 8, 9, 10, 20)}
KEPT_MSRS = (0xC000_0081, 0xC000_0082, 0xC000_0083, 0xC000_0084, 0xC000_0100, 0xC000_0101,
             0xC000_0102, 0xC000_0103, 0x174, 0x175, 0x176)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """What the guest tries, and the code that tries it."""

    attempt: Attempt
    code: str


PLAIN = [
    Case(Plain(R.HLT), "hlt"), Case(Plain(R.INVLPG, 0x20_1000), "invlpg [rbx]"),
    Case(Plain(R.RDPMC), "rdpmc"), Case(Plain(R.RDTSC), "rdtsc"), Case(Plain(R.RDTSCP), "rdtscp"),
    Case(Plain(R.DR_ACCESS, 7 | 1 << 4), "mov rax, dr7"),
    Case(Plain(R.DR_ACCESS, 2 | 9 << 8), "mov dr2, r9"), Case(Plain(R.PAUSE_INSTRUCTION), "pause"),
    Case(Plain(R.WBINVD), "wbinvd"), Case(Plain(R.RDRAND), "rdrand rax"),
    Case(Plain(R.RDSEED), "rdseed rax"), Case(Plain(R.CPUID), "cpuid"),
    Case(Plain(R.INVD), "invd"), Case(Plain(R.GDTR_IDTR, 8), "sgdt [rbx + 8]"),
    Case(Plain(R.LDTR_TR), "str ax"), Case(Plain(R.VMLAUNCH), "vmlaunch"),
    Case(Plain(R.INVPCID), "mov ecx, 2; invpcid rcx, [rbx]"), Case(Clts(), "clts"),
    Case(Raises(6), "ud2"), Case(Raises(3), "int3"), Case(Raises(0), "xor ecx, ecx; div ecx"),
    Case(Raises(13), "mov eax, 0xfff8; mov ds, ax"),
    Case(Raises(14, 0, ABSENT), "mov rax, [rsi]"), Case(Raises(14, 2, ABSENT), "mov [rsi], rax"),
    Case(Raises(14, 3, READ_ONLY), f"mov dword ptr [{READ_ONLY}], eax"),
]  # fmt: skip


@st.composite
def to_control_registers(draw: st.DrawFn) -> Case:
    cr = draw(st.sampled_from([0, 3, 4, 8]))
    if cr == 3:
        value = draw(st.sampled_from([PML4, PML4 | 8, PML4 | 16, PML4 | 24]))
    elif cr == 8:
        value = draw(st.integers(0, 15))
    else:
        value = {0: CR0 | 1 << 16, 4: CR4}[cr]
        for bit in draw(st.sets(st.sampled_from(TOGGLED[cr]), max_size=3)):
            value ^= 1 << bit
    return Case(MovToCr(cr, 2, value), f"mov rdx, {value}; mov cr{cr}, rdx")


@st.composite
def ports(draw: st.DrawFn) -> Case:
    port = draw(st.one_of(st.integers(0, 0xFFFF), st.sampled_from([0, 0x7FFE, 0x7FFF, 0xFFFE])))
    size, reads = draw(st.sampled_from([1, 2, 4])), draw(st.booleans())
    register = {1: "al", 2: "ax", 4: "eax"}[size]
    code = f"mov edx, {port}; " + (f"in {register}, dx" if reads else f"out dx, {register}")
    return Case(Io(port, size, size - 1 | reads << 3 | port << 16), code)


@st.composite
def msrs(draw: st.DrawFn) -> Case:
    msr, writes = draw(st.sampled_from(KEPT_MSRS)), draw(st.booleans())
    code = f"mov ecx, {msr:#x}; xor eax, eax; xor edx, edx; {'wrmsr' if writes else 'rdmsr'}"
    return Case(MsrAccess(msr, writes), code)


CASES = st.one_of(
    st.sampled_from(PLAIN),
    to_control_registers(),
    st.builds(lambda cr: Case(MovFromCr(cr, 1), f"mov rcx, cr{cr}"), st.sampled_from([0, 3, 4, 8])),
    st.builds(lambda word: Case(Lmsw(word), f"mov eax, {word}; lmsw ax"), st.integers(0, 0xFFFF)),
    ports(),
    msrs(),
)


class Machine:
    """A guest at CPL 0 whose handlers, and whose end, are VMCALL."""

    def __init__(self) -> None:
        self.bare = Bare()
        self.bare.word(PD + 8, READ_ONLY | 0x85)
        for vector in range(32):
            self.bare.gate(vector, HANDLER)
        self.bare.load("vmcall", HANDLER)
        self.image = self.bare.vmcs.save()

    def put(self, seed: int) -> None:
        """Draw controls, masks and bitmaps."""
        random, vmcs, bare = Random(seed), self.bare.vmcs, self.bare
        vmcs.restore(self.image)
        bare.pcpu.forget(vmcs)
        bare.regs.cr0 = CR0 | 1 << 16
        for name in (
            "hlt_exiting", "invlpg_exiting", "rdpmc_exiting", "rdtsc_exiting", "cr3_load_exiting",
            "cr3_store_exiting", "cr8_load_exiting", "cr8_store_exiting", "mov_dr_exiting",
            "uncond_io_exiting", "use_io_bitmaps", "use_msr_bitmaps", "pause_exiting",
        ):  # fmt: skip
            self._flip(Field.CPU_BASED_VM_EXEC_CONTROL, int(Primary.of(**{name: 1})), random)
        for name in (
            "wbinvd_exiting", "rdrand_exiting", "rdseed_exiting", "descriptor_table_exiting",
            "enable_invpcid",
        ):  # fmt: skip
            self._flip(Field.SECONDARY_VM_EXEC_CONTROL, int(Secondary.of(**{name: 1})), random)
        vmcs[Field.EXCEPTION_BITMAP] = random.getrandbits(32)
        vmcs[Field.PAGE_FAULT_ERROR_CODE_MASK] = random.choice((0, 1, 2, 3, 0x1F))
        vmcs[Field.PAGE_FAULT_ERROR_CODE_MATCH] = random.choice((0, 1, 2, 3))
        for cr, now in ((0, bare.regs.cr0), (4, CR4)):
            vmcs[Field[f"CR{cr}_GUEST_HOST_MASK"]] = random.getrandbits(64) & random.getrandbits(64)
            vmcs[Field[f"CR{cr}_READ_SHADOW"]] = now ^ (1 << random.choice(TOGGLED[cr]))
        vmcs[Field.CR3_TARGET_COUNT] = random.randrange(5)
        for n in range(4):
            vmcs[Field(Field.CR3_TARGET_VALUE0 + 2 * n)] = PML4 | random.randrange(4) << 3
        for field, at in ((Field.IO_BITMAP_A, IO_A), (Field.IO_BITMAP_B, IO_B),
                          (Field.MSR_BITMAP, MSRS)):  # fmt: skip
            vmcs[field] = at
            thin = random.random() < 0.5
            bits = random.getrandbits(0x8000) & (random.getrandbits(0x8000) if thin else -1)
            bare.poke(at, bits.to_bytes(0x1000, "little"))

    def _flip(self, field: Field, mask: int, random: Random) -> None:
        on = self.bare.vmcs[field] | mask
        self.bare.vmcs[field] = on if random.random() < 0.5 else on & ~mask

    def engine(self, case: Case) -> Exits | None:
        """Try it; an exception that nobody tried, VMCALL and a halt are no exit of it."""
        bare = self.bare
        bare.load(case.code + "; vmcall")
        bare.regs.rip, bare.regs.rsp, bare.regs.rbx, bare.regs.rsi = CODE, STACK, 0x20_1000, ABSENT
        vmexit = bare.enter(bare.clock.now + 100)
        if vmexit.is_stop or vmexit.name == "VMCALL":
            return None
        if vmexit.name == "EXCEPTION_NMI" and not isinstance(case.attempt, Raises):
            return None
        return Exits(R(vmexit.reason), vmexit.qualification)

    def twin(self, case: Case) -> Exits | None:
        """Ask the readable decision."""
        vmcs = self.bare.vmcs
        fields = {field: vmcs[field] for field in Field}
        return Intercepts(fields, self.bare.peek).decide(case.attempt)


MACHINE: list[Machine] = []


@settings(max_examples=600, deadline=None)
@given(CASES, st.integers(0, 1 << 48))
def test_both_decide_the_same(case: Case, seed: int) -> None:
    if not MACHINE:
        MACHINE.append(Machine())
    machine = MACHINE[0]
    machine.put(seed)
    expected = machine.twin(case)
    assert machine.engine(case) == expected
