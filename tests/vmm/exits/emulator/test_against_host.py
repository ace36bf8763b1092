"""The emulator against the host processor, on thousands of random instructions."""

from __future__ import annotations

import os
from collections import Counter
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.vmm.exits.emulator import native
from tests.vmm.exits.emulator.fake import DATA, WRITE, Fake, Registers
from tests.vmm.exits.emulator.generate import Case, make_case
from vmm.exits.emulate import Emulated, Status, emulate

if TYPE_CHECKING:
    from pathlib import Path

CASES = int(os.environ.get("RING1_EMULATOR_CASES", "4000"))
BATCH = 500
STATUS = 0x8D5 | 0x400
STACK_FAULT, GENERAL_PROTECTION, PAGE_FAULT = 12, 13, 14
FLAT = 0x2B
SELECTORS = {
    64: [FLAT, 0x33, FLAT, FLAT, 0, 0],
    32: [FLAT, 0x23, FLAT, FLAT, 0, 0],
    16: [0x17, 0x07, 0x0F, 0x0F, 0, 0],
}
BASES = {
    64: [0, 0, 0, 0, 0, DATA],
    32: [0] * 6,
    16: [DATA + 0x100, 0x1F000000, DATA, DATA, 0, 0],
}

pytestmark = pytest.mark.skipif(
    native.compiler() is None or os.uname().machine != "x86_64",
    reason="needs a C compiler and an x86-64 host",
)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return native.build(tmp_path_factory.mktemp("native"))


def fake_of(state: native.State) -> Fake:
    return Fake(
        bits=state.bits,
        code=state.code.ljust(32, b"\xcc"),
        regs=Registers(list(state.regs), state.rip, state.rflags),
        memory=bytearray(state.memory),
        vectors=list(state.xmm),
        bases=BASES[state.bits],
        selectors=SELECTORS[state.bits],
        stack_bits=state.bits,
    )


def differences(case: Case, host: native.State, outcome: Emulated, ours: Fake) -> list[str]:
    """List what differs between the host's state and ours after one instruction."""
    found = []
    vector = outcome.vector if outcome.status is Status.FAULT else None
    if vector != host.vector:
        found.append(f"vector {vector} host {host.vector} {host.error:#x} {host.address:#x}")
    if vector == PAGE_FAULT and (outcome.error_code, outcome.address) != (host.error, host.address):
        found.append(
            f"fault {outcome.error_code} at {outcome.address or 0:#x},"
            f" host {host.error} at {host.address:#x}"
        )
    mask = (1 << 64) - 1 if host.bits == 64 else (1 << 32) - 1
    for number in range(16 if host.bits == 64 else 8):
        if (ours.regs[number] ^ host.regs[number]) & mask:
            found.append(f"r{number} {ours.regs[number]:#x} host {host.regs[number]:#x}")
    if ours.regs.rip != host.rip:
        found.append(f"rip {ours.regs.rip:#x} host {host.rip:#x}")
    flags = STATUS & ~case.undefined
    if case.kind == "string" and vector is not None:
        flags = 0  # Intel gives back the flags from before the instruction, AMD does not
    if (ours.regs.rflags ^ host.rflags) & flags:
        found.append(f"flags {ours.regs.rflags & flags:#x} host {host.rflags & flags:#x}")
    if ours.memory != host.memory:
        at = next(n for n in range(len(ours.memory)) if ours.memory[n] != host.memory[n])
        found.append(f"memory at {at:#x}: {ours.memory[at : at + 8].hex()}"
                     f" host {host.memory[at : at + 8].hex()}")  # fmt: skip
    if tuple(ours.vectors) != host.xmm and host.bits == 64:
        found.append("xmm")
    if tuple(ours.vectors)[:8] != host.xmm[:8]:
        found.append("low xmm")
    return found


def judge(case: Case, host: native.State) -> str | None:
    """Emulate one case -> a description of how it differs, None if it does not."""
    ours = fake_of(case.state)
    outcome = emulate(ours)
    if outcome.status is Status.UNSUPPORTED:
        return None if case.mutated else f"{case.text}: unsupported {outcome.text}"
    if case.mutated and host.vector in (GENERAL_PROTECTION, STACK_FAULT) and host.bits != 64:
        return None  # a limit or type check, which the machine owes
    if case.kind == "hint" and host.vector == PAGE_FAULT:
        return None  # no access is made for a hint: the machine has resolved the page before
    if case.kind == "string" and outcome.vector == PAGE_FAULT and _both_fault(outcome, host):
        return None
    found = differences(case, host, outcome, ours)
    name = f"{case.state.bits}-bit {case.text} [{case.state.code.hex()}]"
    return f"{name}: {'; '.join(found)}" if found else None


def _both_fault(outcome: Emulated, host: native.State) -> bool:
    """MOVS with both ends missing: we report the store first, so as to lose no device datum."""
    return host.vector == PAGE_FAULT and bool((outcome.error_code or 0) & ~host.error & WRITE)


def cases(bits: int, amount: int, seed: int) -> list[Case]:
    random = Random(seed * 100 + bits)
    return [make_case(random, bits) for _ in range(amount)]


@pytest.mark.parametrize(("bits", "share"), [(64, 0.6), (32, 0.2), (16, 0.2)])
def test_registers_memory_and_flags_are_the_hosts(runner: Path, bits: int, share: float) -> None:
    wrong: list[str] = []
    kinds: Counter[object] = Counter()
    for seed in range(max(1, round(CASES * share) // BATCH)):
        batch = cases(bits, BATCH, seed)
        for case, host in zip(batch, native.execute(runner, [c.state for c in batch]), strict=True):
            kinds[host.vector] += 1
            wrong += filter(None, [judge(case, host)])
    assert not wrong, f"{len(wrong)} differ:\n" + "\n".join(wrong[:40])
    assert kinds[None] > kinds.total() // 2, kinds
    assert kinds[PAGE_FAULT], "no case reached a page fault"
