"""The field table: what an encoding says of a field, and numbers known from the manual."""

import pytest

from hwmodel.arch.vmcs import Field, Group, Width, high_half

# "Field Encoding in VMCS": one of each width and group, typed from the manual's appendix.
KNOWN = [
    (0x0000, "VIRTUAL_PROCESSOR_ID", 16, Group.CONTROL),
    (0x0802, "GUEST_CS_SELECTOR", 16, Group.GUEST_STATE),
    (0x0C0C, "HOST_TR_SELECTOR", 16, Group.HOST_STATE),
    (0x201A, "EPT_POINTER", 64, Group.CONTROL),
    (0x2400, "GUEST_PHYSICAL_ADDRESS", 64, Group.EXIT_INFORMATION),
    (0x2806, "GUEST_IA32_EFER", 64, Group.GUEST_STATE),
    (0x2C02, "HOST_IA32_EFER", 64, Group.HOST_STATE),
    (0x401E, "SECONDARY_VM_EXEC_CONTROL", 32, Group.CONTROL),
    (0x4402, "VM_EXIT_REASON", 32, Group.EXIT_INFORMATION),
    (0x4816, "GUEST_CS_AR_BYTES", 32, Group.GUEST_STATE),
    (0x4C00, "HOST_IA32_SYSENTER_CS", 32, Group.HOST_STATE),
    (0x6004, "CR0_READ_SHADOW", 64, Group.CONTROL),
    (0x6400, "EXIT_QUALIFICATION", 64, Group.EXIT_INFORMATION),
    (0x681E, "GUEST_RIP", 64, Group.GUEST_STATE),
    (0x6C16, "HOST_RIP", 64, Group.HOST_STATE),
]


@pytest.mark.parametrize(("encoding", "name", "bits", "group"), KNOWN)
def test_known_fields(encoding: int, name: str, bits: int, group: Group) -> None:
    field = Field[name]
    assert field == encoding
    assert (field.width.bits, field.group) == (bits, group)
    assert field.mask == (1 << bits) - 1
    assert field.is_read_only == (group is Group.EXIT_INFORMATION)


def test_encodings_have_no_reserved_bits_and_name_full_fields() -> None:
    assert [field.name for field in Field if field & ~0x6FFE] == []


def test_names_agree_with_the_group_that_the_encoding_gives() -> None:
    prefixes = {"HOST_": Group.HOST_STATE}
    for field in Field:
        for prefix, group in prefixes.items():
            assert field.name.startswith(prefix) == (field.group is group), field.name


def test_indexes_are_dense_and_in_order_of_encoding() -> None:
    assert [field.index for field in sorted(Field)] == list(range(len(Field)))


def test_the_segments_of_a_group_follow_each_other() -> None:
    for kind in ("SELECTOR", "LIMIT", "AR_BYTES", "BASE"):
        names = [f"GUEST_{s}_{kind}" for s in ("ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR")]
        encodings = [Field[name] for name in names]
        assert encodings == [encodings[0] + 2 * n for n in range(8)]


def test_only_64_bit_fields_have_a_high_half() -> None:
    assert high_half(Field.EPT_POINTER) == 0x201B
    assert Field.GUEST_RIP.width is Width.NATURAL
    with pytest.raises(ValueError, match="no high half"):
        high_half(Field.GUEST_RIP)
