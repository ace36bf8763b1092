"""Encodings as ACPI's "AML Specification" states them, byte by byte."""

import pytest

from vmm.firmware import aml


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "00"),
        (1, "01"),
        (2, "0a02"),
        (0xFF, "0aff"),
        (0x100, "0b0001"),
        (0xCF8, "0bf80c"),
        (0x10000, "0c00000100"),
        (0xE0000000, "0c000000e0"),
        (1 << 40, "0e0000000000010000"),
        ("LNRO0005", "0d4c4e524f3030303500"),
    ],
)
def test_constants(value: aml.Term, expected: str) -> None:
    assert aml.term(value).hex() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("COM1", b"COM1"),
        ("RTC", b"RTC_"),
        ("\\_SB", b"\\_SB_"),
        ("_SB.PCI0", b"\x2e_SB_PCI0"),
        ("\\_SB.PCI0.ISA.COM1", b"\\\x2f\x04_SB_PCI0ISA_COM1"),
    ],
)
def test_names(text: str, expected: bytes) -> None:
    assert aml.path(text) == expected


def test_eisa_ids_are_compressed() -> None:
    """The ACPI specification's example: EISAID("PNP0C09") is 0x090CD041."""
    assert aml.eisa_id("PNP0C09").hex() == "0c41d00c09"


@pytest.mark.parametrize("size", [0, 1, 57, 58, 59, 4000, 4085, 4086, 4087, 70_000, 1_100_000])
def test_package_lengths_count_themselves(size: int) -> None:
    """Read the length back: bits 7..6 say how many bytes follow, then low nibble first."""
    encoded = aml.scope("A", bytes(size))
    lead = encoded[1]
    extra = lead >> 6
    length = lead & 0x3F
    if extra:
        assert lead & 0x30 == 0
        length = lead & 15 | int.from_bytes(encoded[2 : 2 + extra], "little") << 4
    assert length == len(encoded) - 1
    shortest = 0 if length < 64 else 1 if length < 1 << 12 else 2 if length < 1 << 20 else 3
    assert extra == shortest


def test_a_method_with_both_branches() -> None:
    made = aml.method("_PRT", 0, aml.if_else(aml.path("P"), aml.returns(1), aml.returns(2)))
    assert made.hex() == "1413" + b"_PRT".hex() + "00" + "a007" + b"P___".hex() + "a401" + (
        "a104" + "a40a02"
    )


def test_containers() -> None:
    assert aml.package(0, 2, "x").hex() == "1208" + "03" + "00" + "0a02" + "0d7800"
    assert aml.buffer(b"\x79\x00").hex() == "1105" + "0a02" + "7900"
    assert aml.name("\\_S5", 1).hex() == "08" + b"\\_S5_".hex() + "01"
    assert aml.store(aml.argument(0), "X").hex() == "7068" + b"X___".hex()
    assert aml.device("COM1").hex() == "5b8205" + b"COM1".hex()
