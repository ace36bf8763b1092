"""Facts from the 8259A data sheet: priorities, ends of interrupt, modes, poll, spurious."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vmm.devices.pic import Pic

if TYPE_CHECKING:
    from tests.vmm.devices.conftest import Wire

MASTER, MASTER_DATA, SLAVE, SLAVE_DATA, ELCR0, ELCR1 = range(6)


def initialize(pic: Pic, icw4: int = 0x01) -> None:
    for command, words in ((MASTER, (0x20, 0x04, icw4)), (SLAVE, (0x28, 0x02, icw4))):
        pic.write(command, 1, 0x11)
        for word in words:
            pic.write(command + 1, 1, word)


@pytest.fixture
def pic(wire: Wire) -> Pic:
    device = Pic(wire)
    initialize(device)
    return device


def raise_and_take(pic: Pic, line: int) -> int:
    pic.set_irq(line, True)
    return pic.acknowledge()


@pytest.mark.parametrize("line", [0, 1, 3, 7, 8, 12, 15])
def test_vectors(pic: Pic, wire: Wire, line: int) -> None:
    pic.set_irq(line, True)
    assert wire.level
    assert pic.pending()
    assert pic.acknowledge() == 0x20 + line
    assert not wire.level


def test_vector_base_keeps_its_high_five_bits(wire: Wire) -> None:
    pic = Pic(wire)
    for offset, word in ((MASTER, 0x11), (MASTER_DATA, 0x35), (MASTER_DATA, 4), (MASTER_DATA, 1)):
        pic.write(offset, 1, word)
    assert raise_and_take(pic, 1) == 0x31


def test_mask_holds_back_and_reads_back(pic: Pic, wire: Wire) -> None:
    pic.write(MASTER_DATA, 1, 0xFE)
    assert pic.read(MASTER_DATA, 1) == 0xFE
    pic.set_irq(1, True)
    assert not wire.level
    assert pic.read(MASTER, 1) == 0x02, "the request is there, only masked"
    pic.write(MASTER_DATA, 1, 0xFC)
    assert wire.level


def test_icw1_clears_the_mask(pic: Pic) -> None:
    pic.write(MASTER_DATA, 1, 0xFF)
    initialize(pic)
    assert pic.read(MASTER_DATA, 1) == 0


def test_lower_priority_waits_for_eoi_higher_nests(pic: Pic, wire: Wire) -> None:
    assert raise_and_take(pic, 3) == 0x23
    pic.set_irq(4, True)
    assert not wire.level
    pic.set_irq(1, True)
    assert wire.level
    assert pic.acknowledge() == 0x21
    pic.write(MASTER, 1, 0x0B)
    assert pic.read(MASTER, 1) == 0x0A, "ISR: 3 and 1"
    pic.write(MASTER, 1, 0x20)
    assert pic.read(MASTER, 1) == 0x08, "non-specific EOI ends the highest"
    assert not wire.level
    pic.write(MASTER, 1, 0x20)
    assert wire.level
    assert pic.acknowledge() == 0x24


def test_edge_needs_a_new_edge(pic: Pic, wire: Wire) -> None:
    assert raise_and_take(pic, 5) == 0x25
    pic.write(MASTER, 1, 0x20)
    assert not wire.level, "still high, but no edge"
    pic.set_irq(5, False)
    pic.set_irq(5, True)
    assert wire.level


def test_level_repeats_while_asserted(pic: Pic, wire: Wire) -> None:
    pic.write(ELCR0, 1, 0xFF)
    assert pic.read(ELCR0, 1) == 0xF8, "0, 1, 2 are always edge"
    pic.write(ELCR1, 1, 0xFF)
    assert pic.read(ELCR1, 1) == 0xDE, "8 and 13 too"
    assert raise_and_take(pic, 5) == 0x25
    pic.write(MASTER, 1, 0x20)
    assert wire.level
    pic.set_irq(5, False)
    assert not wire.level


def test_an_edge_stays_latched_when_its_line_falls(pic: Pic) -> None:
    pic.set_irq(3, True)
    pic.set_irq(3, False)
    assert pic.acknowledge() == 0x23


def test_a_level_that_falls_too_early_is_spurious_irq7(pic: Pic) -> None:
    pic.write(ELCR0, 1, 0x08)
    pic.set_irq(3, True)
    pic.set_irq(3, False)
    assert pic.acknowledge() == 0x27
    pic.write(MASTER, 1, 0x0B)
    assert pic.read(MASTER, 1) == 0, "the spurious interrupt is not in service"


def test_spurious_irq15_leaves_the_cascade_in_service(pic: Pic) -> None:
    pic.set_irq(10, True)
    pic.slave.irr = pic.slave.lines = pic.slave.latched = 0  # falls between the two INTA pulses
    assert pic.acknowledge() == 0x2F
    pic.write(MASTER, 1, 0x0B)
    assert pic.read(MASTER, 1) == 0x04


def test_two_slave_interrupts_in_turn(pic: Pic, wire: Wire) -> None:
    assert raise_and_take(pic, 12) == 0x2C
    pic.set_irq(14, True)
    assert not wire.level
    pic.write(SLAVE, 1, 0x20)
    assert not wire.level, "the master still has line 2 in service"
    pic.write(MASTER, 1, 0x20)
    assert wire.level
    assert pic.acknowledge() == 0x2E


def test_specific_eoi(pic: Pic) -> None:
    raise_and_take(pic, 3)
    raise_and_take(pic, 1)
    pic.write(MASTER, 1, 0x63)
    pic.write(MASTER, 1, 0x0B)
    assert pic.read(MASTER, 1) == 0x02


def test_rotation_on_eoi_makes_the_served_line_lowest(pic: Pic) -> None:
    raise_and_take(pic, 0)
    pic.write(MASTER, 1, 0xA0)  # rotate on non-specific EOI
    pic.set_irq(0, False)
    pic.set_irq(0, True)
    pic.set_irq(7, True)
    assert pic.acknowledge() == 0x27
    pic.write(MASTER, 1, 0x20)
    assert pic.acknowledge() == 0x20


def test_set_priority(pic: Pic) -> None:
    pic.write(MASTER, 1, 0xC4)  # line 4 lowest, so 5 is highest
    pic.set_irq(0, True)
    pic.set_irq(5, True)
    assert pic.acknowledge() == 0x25


def test_automatic_eoi(pic: Pic, wire: Wire) -> None:
    initialize(pic, icw4=0x03)
    raise_and_take(pic, 1)
    pic.write(MASTER, 1, 0x0B)
    assert pic.read(MASTER, 1) == 0
    pic.set_irq(4, True)
    assert wire.level


def test_special_mask_mode_lets_lower_priorities_in(pic: Pic, wire: Wire) -> None:
    raise_and_take(pic, 1)
    pic.write(MASTER_DATA, 1, 0x02)
    pic.set_irq(6, True)
    assert not wire.level
    pic.write(MASTER, 1, 0x68)
    assert wire.level
    assert pic.acknowledge() == 0x26


def test_poll_acknowledges(pic: Pic, wire: Wire) -> None:
    pic.set_irq(4, True)
    pic.write(MASTER, 1, 0x0C)
    assert pic.read(MASTER, 1) == 0x84
    assert not wire.level
    pic.write(MASTER, 1, 0x0C)
    assert pic.read(MASTER, 1) == 0x00


def test_special_fully_nested_master_admits_the_slave_again(pic: Pic, wire: Wire) -> None:
    initialize(pic, icw4=0x11)
    raise_and_take(pic, 12)
    pic.set_irq(9, True)
    assert wire.level
    assert pic.acknowledge() == 0x29
