"""Events, qualifications and paging entries as raw numbers that are known from elsewhere."""

import pytest

from hwmodel.arch.addr import (
    Gpa,
    bytes_left_in_page,
    is_canonical,
    page_down,
    page_up,
    sign_extend,
)
from hwmodel.arch.events import AccessRights, EventType, InterruptionInformation, Vector
from hwmodel.arch.exits import ExitReason, ExitReasonWord
from hwmodel.arch.paging import EptLeaf, EptMemoryType, EptPointer, MemoryType, Pte
from hwmodel.arch.qualification import QUALIFICATION, CrAccess, CrAccessType, EptViolation, Io


def test_interruption_information_of_a_page_fault() -> None:
    word = InterruptionInformation.of(
        vector=Vector.PF, type=EventType.HARDWARE_EXCEPTION, has_error_code=1, valid=1
    )
    assert word == 0x80000B0E


def test_vectors_with_error_codes() -> None:
    assert [int(v) for v in Vector if v.has_error_code] == [8, 10, 11, 12, 13, 14, 17, 21]
    assert not Vector.PF.is_contributory
    assert Vector.GP.is_contributory


def test_port_access() -> None:
    word = Io(0x03F8_0000)  # out dx, al
    assert (word.port, word.bytes, word.is_in, word.string) == (0x3F8, 1, False, False)
    assert Io(0x0510_003B).bytes == 4
    with pytest.raises(ValueError, match="not a valid IoSize"):
        _ = Io(2).size


def test_control_register_access() -> None:
    word = CrAccess(0x0000_0203)  # mov cr3, rdx
    assert (word.cr, word.access_type, word.register) == (3, CrAccessType.MOV_TO_CR, 2)


def test_ept_violation_of_a_write_to_nothing() -> None:
    assert EptViolation.of(write=1, linear_address_valid=1, final_translation=1) == 0x182


def test_every_qualification_belongs_to_a_reason_of_its_own() -> None:
    assert len(set(QUALIFICATION.values())) == len(QUALIFICATION)


def test_exit_reason_word() -> None:
    word = ExitReasonWord(0x8000_0021)
    assert word.entry_failure
    assert ExitReason(word.basic) is ExitReason.INVALID_STATE
    assert ExitReason.INVALID_STATE.is_entry_failure
    assert [int(r) for r in ExitReason if r.is_trap_like] == [43, 45, 56, 74]


def test_flat_64_bit_code_segment() -> None:
    assert AccessRights.of(type=11, s=1, p=1, l=1, g=1) == 0xA09B


def test_entries() -> None:
    assert EptPointer.of(memory_type=EptMemoryType.WB, walk_length_minus_1=3, frame=1) == 0x101E
    assert Pte.of(present=1, write=1, nx=1, frame=0x1000) == 0x8000_0000_0100_0003
    assert EptLeaf(0b0).is_present is False
    assert EptLeaf(0b100).is_present
    assert EptLeaf(0x30).memory_type is EptMemoryType.WB
    assert not EptLeaf(0x38).has_valid_type
    assert int(MemoryType.UC_MINUS) == 7


def test_page_arithmetic() -> None:
    assert page_down(Gpa(0x1FFF)) == 0x1000
    assert (page_up(Gpa(0x1001)), page_up(Gpa(0x1000))) == (0x2000, 0x1000)
    assert (bytes_left_in_page(0x1FFF), bytes_left_in_page(0x1000)) == (1, 4096)


@pytest.mark.parametrize(
    ("address", "bits", "expected"),
    [
        (0x0000_7FFF_FFFF_FFFF, 48, True),
        (0x0000_8000_0000_0000, 48, False),
        (0xFFFF_8000_0000_0000, 48, True),
        (0xFFFF_7FFF_FFFF_FFFF, 48, False),
        (0x0000_8000_0000_0000, 57, True),
        (0xFF00_0000_0000_0000, 57, True),
        (0x0100_0000_0000_0000, 57, False),
    ],
)
def test_canonical(address: int, bits: int, expected: bool) -> None:
    assert is_canonical(address, bits) is expected


def test_sign_extension() -> None:
    assert sign_extend(0x80, 8) == 0xFFFF_FFFF_FFFF_FF80
    assert sign_extend(0x17F, 8) == 0x7F
