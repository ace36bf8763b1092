"""The modelled TLB in C against the readable one: the same misses for the same accesses."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodel.arch.model import CpuModel
from hwmodel.arch.paging import InvVpid
from hwmodel.arch.translation import Fidelity, Kind
from hwmodel.arch.vmcs import Field
from hwmodel.mem.tlb import Found, ModelTlb
from tests.bare import MIB, Bare

TABLE, GLOBAL = 0x20000, 0x100
ALIASES, STRIDE = (
    24,
    32,
)  # pages that share a set of the second level: 2 MiB apart; of the first: 32
OPERATIONS = st.one_of(
    st.tuples(st.just("touch"), st.integers(0, ALIASES - 1), st.integers(0, 3)),
    st.tuples(st.just("touch"), st.integers(0, ALIASES - 1), st.integers(0, 3)),
    st.tuples(st.just("touch"), st.integers(0, ALIASES - 1), st.integers(0, 3)),
    st.tuples(st.just("drop"), st.integers(0, ALIASES - 1), st.integers(0, 3)),
    st.tuples(st.just("flush"), st.sampled_from([1, 3]), st.integers(1, 2)),
    st.tuples(st.just("switch"), st.just(0), st.integers(1, 2)),
)


def page_of(alias: int, place: int) -> int:
    """A linear page number; places 2 and 3 are global pages."""
    return (2 * MIB + alias * 2 * MIB >> 12) + place * STRIDE


def machine_of(fidelity: Fidelity) -> Bare:
    machine = Bare(pages_4k=True)
    machine.pcpu.set_paging(CpuModel.load(), fidelity)
    machine.control2(enable_vpid=1)
    machine.regs.cr4 |= 1 << 7
    for n in range(2, ALIASES + 2):
        machine.word(0x3000 + 8 * n, TABLE | 7)
    for place in (2, 3):
        at = TABLE + 8 * place * STRIDE
        machine.word(at, machine.peek(at) | GLOBAL)
    return machine


def apply(
    machine: Bare, twin: ModelTlb, operations: list[tuple[str, int, int]]
) -> tuple[Counter[Found], list[int]]:
    """Do the same to both; return what the twin found, and the engine's counts."""
    vpid, seen = 1, Counter[Found]()
    before = counts(machine)
    for what, first, second in operations:
        if what == "switch":
            vpid = second
        machine.vmcs[Field.VIRTUAL_PROCESSOR_ID] = vpid
        owners = ((vpid, "own"), (vpid, "global"))
        page = page_of(first, second)
        if what == "touch":
            assert isinstance(machine.pcpu.read(machine.vmcs, page << 12, 1), bytes)
            seen[twin.touch(page, owners, Kind.DATA, is_global=second >= 2)] += 1
        elif what == "drop":
            machine.pcpu.invvpid(InvVpid.ADDRESS, vpid, page << 12)
            twin.drop(page, owners)
        elif what == "flush":
            machine.pcpu.invvpid(InvVpid(first), second)
            twin.flush((second, "own"))
            if first == InvVpid.SINGLE_CONTEXT:
                twin.flush((second, "global"))
    after = counts(machine)
    return seen, [a - b for a, b in zip(after, before, strict=True)]


def counts(machine: Bare) -> list[int]:
    counted = machine.pcpu.mmu_counters()
    misses, hits = counted["misses"], counted["level2_hits"]
    assert isinstance(misses, list)
    assert isinstance(hits, list)
    return [misses[0], hits[0]]


@pytest.mark.parametrize("fidelity", [Fidelity.SHARED, Fidelity.SPLIT], ids=["shared", "split"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(operations=st.lists(OPERATIONS, min_size=1, max_size=120))
def test_c_and_twin_miss_alike(fidelity: Fidelity, operations: list[tuple[str, int, int]]) -> None:
    machine = machine_of(fidelity)
    machine.vmcs[Field.VIRTUAL_PROCESSOR_ID] = 2
    machine.pcpu.read(machine.vmcs, 0, 1)
    machine.vmcs[Field.VIRTUAL_PROCESSOR_ID] = 1
    machine.pcpu.read(machine.vmcs, 0, 1)
    seen, counted = apply(machine, ModelTlb(CpuModel.load().translation.tlbs, fidelity), operations)
    machine.close()
    assert counted == [seen[Found.NOWHERE], seen[Found.SECOND_LEVEL]]
