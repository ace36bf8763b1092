"""Allowed settings, held against the constants that Linux's asm/vmx.h has for them."""

import pytest

from hwmodel.arch.controls import (
    Allowed,
    EntryControls,
    ExitControls,
    PinBased,
    Primary,
    Secondary,
)
from hwmodel.arch.word import Word


@pytest.mark.parametrize(
    ("word", "legacy", "true"),
    [
        (PinBased, 0x16, 0x16),
        (Primary, 0x0401E172, 0x04006172),
        (ExitControls, 0x36DFF, 0x36DFB),
        (EntryControls, 0x11FF, 0x11FB),
        (Secondary, 0, 0),
    ],
)
def test_fixed_bits(word: type[Word], legacy: int, true: int) -> None:
    assert Allowed.of(word, word(0), true=False).must_be_1 == legacy
    assert Allowed.of(word, word(0)).must_be_1 == true


def test_settings_are_refused_and_adjusted_bit_by_bit() -> None:
    allowed = Allowed.of(Primary, Primary.of(hlt_exiting=1))
    good = 0x04006172 | 1 << 7
    assert allowed.refuses(good) == 0
    assert repr(allowed.refuses(good | 1 << 30)) == "Primary(0x40000000 pause_exiting)"
    assert allowed.refuses(good & ~(1 << 1)) == 2
    assert allowed.adjust(1 << 30 | 1 << 7) == good
    assert allowed.refuses(good | 1 << 15) == 0  # default1, but TRUE settings allow both


def test_capability_msr() -> None:
    allowed = Allowed.of(PinBased, PinBased.of(external_interrupt_exiting=1, nmi_exiting=1))
    assert allowed.msr() == 0x0000001F_00000016
