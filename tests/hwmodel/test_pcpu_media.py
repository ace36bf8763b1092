"""Which instructions CR0.TS, CR0.EM and CR4.OSFXSR concern.

Manual: "Control Registers" (TS, EM, OSFXSR, with the instructions that they exempt), "Action Taken
for Combinations of OSFXSR, OSXMMEXCPT, SSE, SSE2, SSE3, SSSE3, SSE4.1, EM, MP, and TS", "Effects
of CR0 Flags on MMX Instructions", "Exception Conditions of Legacy SIMD Instructions" and the
instructions' own pages.
"""

from collections.abc import Callable, Iterator
from itertools import product

import pytest

from hwmodel.arch.exits import ExitReason
from tests.bare import CODE, FOREVER, Bare, Mode, assemble

Make = Callable[..., Bare]
Rule = Callable[[bool, bool, bool], int | None]
MP, EM, TS, OSFXSR, FSGSBASE = 1 << 1, 1 << 2, 1 << 3, 1 << 9, 1 << 16
UD, NM = 6, 7
DATA = 0x200000
MODES = [Mode.LONG, Mode.PROTECTED]

GENERAL = (
    "movbe eax, dword ptr [ebx]", "movbe word ptr [ebx], ax", "crc32 eax, cl", "crc32 eax, ecx",
    "crc32 eax, cx", "andn eax, ecx, edx", "bextr eax, ecx, edx", "blsi eax, ecx",
    "bzhi eax, ecx, edx", "pdep eax, ecx, edx", "mulx eax, ecx, dword ptr [ebx]",
    "shlx eax, ecx, edx", "rorx eax, ecx, 3", "adcx eax, ecx", "adox eax, ecx", "popcnt eax, ecx",
    "tzcnt eax, ecx", "lzcnt eax, ecx", "movnti dword ptr [ebx], eax", "prefetcht0 [ebx]",
    "prefetchw [ebx]", "clflush [ebx]", "lfence", "mfence", "sfence", "pause", "rdrand eax",
    "invpcid {a}, [{b}]",
)  # fmt: skip
X87 = ("fninit", "fld1", "fnstsw ax", "fnclex", "fxsave [ebx]", "fxrstor [ebx]")
MMX = ("paddb mm0, mm1", "movd mm0, eax", "pshufw mm0, mm1, 3", "pavgb mm0, mm1", "emms",
       "movntq qword ptr [ebx], mm0")  # fmt: skip
SSE = (
    "addps xmm0, xmm1", "movaps xmm0, [ebx]", "paddb xmm0, xmm1", "addsd xmm0, xmm1",
    "pshufb xmm0, xmm1", "pminud xmm0, xmm1", "palignr xmm0, xmm1, 3", "pcmpistri xmm0, xmm1, 0",
    "pextrd eax, xmm0, 1", "aesenc xmm0, xmm1", "aeskeygenassist xmm0, xmm1, 1",
    "pclmulqdq xmm0, xmm1, 0", "cvtsi2sd xmm0, eax", "cvtpi2ps xmm0, mm0", "movdq2q mm0, xmm0",
    "ldmxcsr [ebx + 24]", "stmxcsr [ebx]", "movntdq [ebx], xmm0",
)  # fmt: skip


def settings() -> Iterator[tuple[bool, bool, bool]]:
    """All of (TS, EM, OSFXSR)."""
    yield from product((False, True), repeat=3)


def outcome(machine: Bare, code: bytes, ts: bool, em: bool, osfxsr: bool) -> int | None:
    """The vector that `code` raises in these settings; None: it is carried out."""
    regs, at = machine.regs, CODE
    machine.poke(DATA, bytes(24) + b"\x80\x1f" + bytes(512))
    machine.poke(at, b"\x90" + code + b"\xf4")
    regs.cr0 = regs.cr0 & ~(TS | EM) | TS * ts | EM * em
    regs.cr4 = regs.cr4 & ~OSFXSR | OSFXSR * osfxsr
    regs.rip, regs.rax, regs.rbx, regs.rcx, regs.rdx = at, 2, DATA, 5, 0x204
    vmexit = machine.enter()
    if vmexit.reason == ExitReason.EXCEPTION_NMI:
        assert vmexit.rip == at + 1
        return vmexit.interruption_info & 0xFF
    assert (vmexit.reason, vmexit.rip) == (ExitReason.HLT, at + 1 + len(code))
    return None


def check(machine: Bare, text: str, rule: Rule) -> None:
    """Compare all the outcomes with the manual's."""
    a, b = ("rax", "rbx") if machine.mode is Mode.LONG else ("eax", "ebx")
    code = assemble(text.format(a=a, b=b), bits=machine.mode.value)
    found = {row: outcome(machine, code, *row) for row in settings()}
    assert found == {row: rule(*row) for row in settings()}


@pytest.fixture
def machine(bare: Make, mode: Mode) -> Bare:
    made: Bare = bare(mode)
    made.control2(enable_invpcid=1)
    made.intercept(UD, NM)
    return made


def x87(ts: bool, em: bool, osfxsr: bool) -> int | None:
    return NM if ts or em else None


def mmx(ts: bool, em: bool, osfxsr: bool) -> int | None:
    return UD if em else NM if ts else None


def sse(ts: bool, em: bool, osfxsr: bool) -> int | None:
    return UD if em or not osfxsr else NM if ts else None


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("text", GENERAL)
def test_general_registers_are_always_available(machine: Bare, text: str) -> None:
    """TCG raised #NM for those in the SSE maps, and #UD for those of them that begin with 66."""
    check(machine, text, lambda ts, em, osfxsr: None)


@pytest.mark.parametrize("mode", [Mode.LONG])
@pytest.mark.parametrize("text", ["rdfsbase rax", "wrgsbase rax"])
def test_segment_bases_are_always_available(machine: Bare, text: str) -> None:
    machine.regs.cr4 |= FSGSBASE
    check(machine, text, lambda ts, em, osfxsr: None)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("text", "rule"), [(t, r) for ts, r in ((X87, x87), (MMX, mmx), (SSE, sse)) for t in ts]
)
def test_media_instructions(machine: Bare, text: str, rule: Rule) -> None:
    """#UD goes before #NM; TCG had it the other way round."""
    check(machine, text, rule)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("monitor", [False, True])
def test_wait_is_not_available_if_mp_says_so(machine: Bare, monitor: bool) -> None:
    machine.regs.cr0 = machine.regs.cr0 & ~MP | MP * monitor
    check(machine, "wait", lambda ts, em, osfxsr: NM if ts and monitor else None)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("code", ["0f0e", "0f0fc19e", "660f3883c1", "f20f38f9c1", "0f38c8c1"])
def test_what_the_processor_does_not_have_is_invalid(machine: Bare, code: str) -> None:
    """3DNow!, the future and SHA: also while TS is set."""
    assert {outcome(machine, bytes.fromhex(code), *row) for row in settings()} == {UD}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("code", ["0f38f0c1", "0f38f1c1", "660f38f0c1"])
def test_movbe_between_registers_is_invalid(machine: Bare, code: str) -> None:
    """TCG took it for an access to address 0."""
    assert {outcome(machine, bytes.fromhex(code), *row) for row in settings()} == {UD}


def castagnoli(byte: int) -> int:
    """What CRC32 makes of zero and a byte (the page of CRC32: polynomial 11EDC6F41, reflected)."""
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


@pytest.mark.parametrize("until", [1, 3, FOREVER])
def test_the_results_are_those_without_the_flags(bare: Make, until: int) -> None:
    """Among them, however a block is cut, TS counts for the instruction that it concerns."""
    machine = bare()
    machine.intercept(NM)
    machine.regs.cr0 |= TS
    machine.regs.rbx, machine.regs.rcx, machine.regs.rdx = DATA, 0xFF, 0x0F
    machine.poke(DATA, bytes.fromhex("12345678"))
    text = """
        movbe esi, dword ptr [rbx]; andn edi, edx, ecx; stc; adcx ecx, edx; xor eax, eax
        crc32 eax, dl; paddb xmm0, xmm1; hlt
    """
    code = machine.load(text)
    vmexit = machine.enter(until)
    if until != FOREVER:
        assert machine.pcpu.instructions == until
        vmexit = machine.enter()
    assert (vmexit.reason, vmexit.interruption_info & 0xFF) == (ExitReason.EXCEPTION_NMI, NM)
    assert (vmexit.rip, machine.pcpu.instructions) == (CODE + len(code) - 5, 6)
    regs = machine.regs
    assert (regs.rsi, regs.rdi, regs.rcx) == (0x12345678, 0xF0, 0x10F)
    assert regs.rax == castagnoli(0x0F)
