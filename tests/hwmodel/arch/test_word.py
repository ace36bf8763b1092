"""Words: layouts that overlap, values that do not fit and names that do not exist are refused."""

from enum import IntEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodel.arch.word import Word, bits, field, flag


class Colour(IntEnum):
    RED = 0
    BLUE = 5


class Sample(Word):
    on = flag(0)
    colour = field(6, 4, Colour)
    frame = bits(51, 12)


def test_a_word_is_the_number() -> None:
    word = Sample.of(on=1, colour=Colour.BLUE, frame=0x1234)
    assert word == 0x1234051
    assert (word.on, word.colour, word.frame) == (True, Colour.BLUE, 0x1234)
    assert word.on is True
    assert isinstance(word.colour, Colour)


def test_replace_leaves_everything_else() -> None:
    assert Sample((1 << 64) - 1).replace(on=0, frame=1) == 0xFFF0_0000_0000_1FFE


def test_unknown_names_and_values_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TypeError, match="has no field 'off'"):
        Sample.of(off=1)
    with pytest.raises(ValueError, match="does not fit"):
        Sample.of(on=2)
    with pytest.raises(ValueError, match="does not fit"):
        Sample.of(frame=-1)
    with pytest.raises(ValueError, match="not a valid Colour"):
        Sample.of(colour=3)


def test_overlap_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match=r"Bad\.second overlaps"):

        class Bad(Word):
            first = bits(7, 4)
            second = flag(7)

    with pytest.raises(TypeError, match=r"Inherited\.late overlaps"):

        class Inherited(Sample):
            late = flag(12)


def test_repr_names_what_is_set() -> None:
    assert repr(Sample.of(on=1, frame=0x10)) == "Sample(0x10001 on frame=0x10)"
    assert repr(Sample(0x58)) == "Sample(0x58 colour=BLUE unnamed=0x8)"
    assert repr(Sample(0x30)) == "Sample(0x30 colour=0x3)"  # a reserved value is no reason to fail


@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 40) - 1))
def test_a_replaced_field_reads_back(raw: int, frame: int) -> None:
    word = Sample(raw).replace(frame=frame)
    assert word.frame == frame
    assert word & ~Sample.frame.mask == raw & ~Sample.frame.mask
