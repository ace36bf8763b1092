"""The shared time page: the guest's formula against exact arithmetic."""

from struct import unpack_from

from hypothesis import given
from hypothesis import strategies as st

from hwmodel.mem.ram import PAGE
from vmm.memory.guest import GuestMemory
from vmm.pv.pvclock import TSC_STABLE, Scale, write_time, write_wall_clock
from vmm.pv.shared import SharedArea

YEAR = 365 * 86_400


def as_linux_reads(page: bytes, tsc: int) -> int:
    """Linux asm/pvclock.h, pvclock_scale_delta: shift, then the upper part of a 96-bit product."""
    stamp, ns, mul, shift = unpack_from("<QQIb", page, 8)
    delta = tsc - stamp & (1 << 64) - 1
    delta = delta << shift & (1 << 64) - 1 if shift >= 0 else delta >> -shift
    return int(ns + (delta * mul >> 32))


@given(st.integers(1_000_000, 10_000_000_000), st.integers(0, YEAR))
def test_a_scale_is_exact_to_half_a_billionth(hz: int, seconds: int) -> None:
    scale = Scale.of(hz)
    assert 1 << 31 <= scale.mul < 1 << 32
    exact = seconds * 1_000_000_000
    assert exact - exact // 10**9 - 2 <= scale.ns(seconds * hz) <= exact


@given(
    st.integers(1_000_000, 10_000_000_000), st.integers(0, (1 << 64) - 1), st.integers(0, 1 << 50),
    st.integers(0, 1 << 40),
)  # fmt: skip
def test_a_guest_reads_what_the_scale_says(hz: int, tsc: int, ns: int, ticks: int) -> None:
    memory = GuestMemory(((0, PAGE),))
    scale = Scale.of(hz)
    write_time(SharedArea(memory, 64, 32), scale, tsc, ns, TSC_STABLE)
    page = memory.read(64, 32)
    assert as_linux_reads(page, tsc + ticks) == ns + scale.ns(ticks)
    assert page[29] == TSC_STABLE
    assert unpack_from("<I", page)[0] % 2 == 0


def test_the_version_goes_on_to_an_even_one_from_whatever_was_there() -> None:
    memory = GuestMemory(((0, PAGE),))
    area = SharedArea(memory, 0, 32)
    for before, after in ((0, 2), (1, 4), (2, 4), (0xFFFF_FFFF, 2), (0xFFFF_FFFE, 0)):
        area.write(0, 4, before)
        write_time(area, Scale.of(10**9), 0, 0, 0)
        assert area.read(0, 4) == after


def test_a_wall_clock_is_a_date() -> None:
    memory = GuestMemory(((0, PAGE),))
    write_wall_clock(SharedArea(memory, 4, 12), 1_767_225_600, 2_000_000_001)
    assert unpack_from("<III", memory.read(4, 12)) == (2, 1_767_225_602, 1)
