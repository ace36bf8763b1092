"""The arithmetic of leaked bits."""

import pytest

from vmm.experiments.side_channel import count_bits, information


def test_what_is_known_for_certain_is_one_bit_each() -> None:
    assert information(((0, 0), (1, 1), (0, 0), (1, 1))) == pytest.approx(1)
    assert information(((0, 1), (1, 0))) == pytest.approx(1)


def test_a_guess_that_says_nothing_is_none() -> None:
    assert information(((0, 0), (1, 0), (0, 0))) == 0
    assert information(((0, 0), (0, 1), (1, 0), (1, 1))) == 0


def test_the_sum_of_fair_bits() -> None:
    """Of two: 0, 1, 1, 2, hence 1.5 bits; of many about half the logarithm of 2 pi e n / 4."""
    assert count_bits(2) == pytest.approx(1.5)
    assert count_bits(800) == pytest.approx(5.869, abs=0.001)
