"""The virtual clock's arithmetic: exact, and rounded down."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodel.timing.clock import Clock

frequencies = st.integers(1, 10**11)
amounts = st.integers(0, 1 << 80)


def test_default_is_the_default_models_tsc() -> None:
    assert Clock().frequency == 2_500_000_000
    assert Clock(now=5).ns() == 2  # 5 cycles of 0.4 ns


@given(frequencies, amounts)
def test_conversions_are_the_exact_quotient_rounded_down(frequency: int, amount: int) -> None:
    clock = Clock(frequency)
    assert clock.ns_of_cycles(amount) == Fraction(amount * 10**9, frequency).__floor__()
    assert clock.cycles_of_ns(amount) == Fraction(amount * frequency, 10**9).__floor__()


@given(frequencies, amounts)
def test_a_time_in_cycles_is_never_after_itself(frequency: int, ns: int) -> None:
    clock = Clock(frequency)
    assert clock.ns_of_cycles(clock.cycles_of_ns(ns)) <= ns


@pytest.mark.parametrize("frequency", [0, -1])
def test_a_clock_that_does_not_tick_is_refused(frequency: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Clock(frequency)
