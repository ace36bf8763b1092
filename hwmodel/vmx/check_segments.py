"""The checks on guest segment and descriptor-table registers, one function each.

"Checks on Guest Segment Registers", "Checks on Guest Descriptor-Table Registers"; usable means
that bit 16 of the access rights is 0. The C twin is cext/check_segments.c.
"""

from hwmodel.arch.vmcs import Field
from hwmodel.vmx.entry_view import (
    DATA_SEGMENTS,
    SEGMENTS,
    EntryView,
    has_reserved_rights,
    is_granular,
)

_V8086_RIGHTS = 0xF3
_DATA_OR_ACCESSED = 11  # types 0 to 11: data and non-conforming code


def tr_selector(v: EntryView) -> bool:
    """TR refers to the GDT."""
    return not v.selector("TR") & 4


def ldtr_selector(v: EntryView) -> bool:
    """A usable LDTR refers to the GDT."""
    return not v.is_usable("LDTR") or not v.selector("LDTR") & 4


def ss_selector(v: EntryView) -> bool:
    """SS has the RPL of CS, but in virtual-8086 mode and in an unrestricted guest."""
    if v.is_v8086 or v.unrestricted:
        return True
    return v.selector("SS") & 3 == v.selector("CS") & 3


def v8086_bases(v: EntryView) -> bool:
    """In virtual-8086 mode a base is its selector times 16."""
    return not v.is_v8086 or all(v.base(s) == v.selector(s) << 4 for s in SEGMENTS)


def tr_fs_gs_bases(v: EntryView) -> bool:
    """The bases of TR, FS and GS are canonical."""
    return all(v.is_canonical(v.base(s)) for s in ("TR", "FS", "GS"))


def ldtr_base(v: EntryView) -> bool:
    """The base of a usable LDTR is canonical."""
    return not v.is_usable("LDTR") or v.is_canonical(v.base("LDTR"))


def cs_base(v: EntryView) -> bool:
    """The base of CS lies below 4 GiB."""
    return v.base("CS") >> 32 == 0


def ss_ds_es_bases(v: EntryView) -> bool:
    """The bases of usable SS, DS and ES lie below 4 GiB."""
    return all(not v.is_usable(s) or v.base(s) >> 32 == 0 for s in ("SS", "DS", "ES"))


def v8086_limits(v: EntryView) -> bool:
    """In virtual-8086 mode each limit is 64 KiB."""
    return not v.is_v8086 or all(v.limit(s) == 0xFFFF for s in SEGMENTS)


def v8086_rights(v: EntryView) -> bool:
    """In virtual-8086 mode the access rights are those of writable data at DPL 3."""
    return not v.is_v8086 or all(v.rights(s) == _V8086_RIGHTS for s in SEGMENTS)


def cs_type(v: EntryView) -> bool:
    """CS is accessed code; in an unrestricted guest it may be accessed, writable data."""
    types = {9, 11, 13, 15} | ({3} if v.unrestricted else set())
    return v.is_v8086 or v.rights("CS").type in types


def ss_type(v: EntryView) -> bool:
    """A usable SS is accessed, writable data."""
    return v.is_v8086 or not v.is_usable("SS") or v.rights("SS").type in (3, 7)


def data_types(v: EntryView) -> bool:
    """Usable DS, ES, FS and GS are accessed, and readable if they are code."""

    def fits(segment: str) -> bool:
        kind = v.rights(segment).type
        return not v.is_usable(segment) or bool(kind & 1 and (not kind & 8 or kind & 2))

    return v.is_v8086 or all(fits(s) for s in DATA_SEGMENTS)


def segments_are_code_or_data(v: EntryView) -> bool:
    """CS, and each usable SS, DS, ES, FS and GS, is no system segment."""
    return v.is_v8086 or all(v.rights(s).s for s in SEGMENTS if s == "CS" or v.is_usable(s))


def cs_dpl(v: EntryView) -> bool:
    """The DPL of CS: 0 for data, that of SS for non-conforming code, not above it for others."""
    if v.is_v8086:
        return True
    kind, dpl, ss = v.rights("CS").type, v.rights("CS").dpl, v.rights("SS").dpl
    rules = {3: dpl == 0, 9: dpl == ss, 11: dpl == ss, 13: dpl <= ss, 15: dpl <= ss}
    return rules.get(kind, True)


def ss_dpl_is_rpl(v: EntryView) -> bool:
    """The DPL of SS is its RPL, but in an unrestricted guest."""
    if v.is_v8086 or v.unrestricted:
        return True
    return v.rights("SS").dpl == v.selector("SS") & 3


def ss_dpl_without_protection(v: EntryView) -> bool:
    """The DPL of SS is 0 where CS is data, and without protection."""
    applies = not v.is_v8086 and (v.rights("CS").type == 3 or not v.cr0.pe)
    return not applies or v.rights("SS").dpl == 0


def data_dpls(v: EntryView) -> bool:
    """The DPL of usable DS, ES, FS, GS is not below their RPL, for data and non-conforming code."""

    def fits(segment: str) -> bool:
        rights = v.rights(segment)
        applies = v.is_usable(segment) and rights.type <= _DATA_OR_ACCESSED
        return not applies or rights.dpl >= v.selector(segment) & 3

    return v.is_v8086 or v.unrestricted or all(fits(s) for s in DATA_SEGMENTS)


def segments_are_present(v: EntryView) -> bool:
    """CS, and each usable SS, DS, ES, FS and GS, is present."""
    return v.is_v8086 or all(v.rights(s).p for s in SEGMENTS if s == "CS" or v.is_usable(s))


def segments_reserved(v: EntryView) -> bool:
    """Reserved bits of the access rights are 0 in CS and in each usable segment."""
    if v.is_v8086:
        return True
    return not any(
        has_reserved_rights(v.rights(s)) for s in SEGMENTS if s == "CS" or v.is_usable(s)
    )


def cs_size(v: EntryView) -> bool:
    """64-bit code has D = 0."""
    rights = v.rights("CS")
    return v.is_v8086 or not (v.entry.ia32e_mode_guest and rights.l and rights.db)


def segments_granularity(v: EntryView) -> bool:
    """G fits the limit in CS and in each usable segment."""
    if v.is_v8086:
        return True
    used = [s for s in SEGMENTS if s == "CS" or v.is_usable(s)]
    return all(is_granular(v.limit(s), v.rights(s)) for s in used)


def tr_type(v: EntryView) -> bool:
    """TR is a busy TSS: 32- or 64-bit; outside IA-32e mode a 16-bit one too."""
    return v.rights("TR").type in ({11} if v.entry.ia32e_mode_guest else {3, 11})


def tr_is_system(v: EntryView) -> bool:
    """TR is a system segment."""
    return not v.rights("TR").s


def tr_is_present(v: EntryView) -> bool:
    """TR is present."""
    return v.rights("TR").p


def tr_reserved(v: EntryView) -> bool:
    """Reserved bits of TR's access rights are 0."""
    return not has_reserved_rights(v.rights("TR"))


def tr_granularity(v: EntryView) -> bool:
    """G fits TR's limit."""
    return is_granular(v.limit("TR"), v.rights("TR"))


def tr_is_usable(v: EntryView) -> bool:
    """TR is usable."""
    return v.is_usable("TR")


def ldtr_type(v: EntryView) -> bool:
    """A usable LDTR is an LDT."""
    return not v.is_usable("LDTR") or v.rights("LDTR").type == 2


def ldtr_is_system(v: EntryView) -> bool:
    """A usable LDTR is a system segment."""
    return not v.is_usable("LDTR") or not v.rights("LDTR").s


def ldtr_is_present(v: EntryView) -> bool:
    """A usable LDTR is present."""
    return not v.is_usable("LDTR") or v.rights("LDTR").p


def ldtr_reserved(v: EntryView) -> bool:
    """Reserved bits of a usable LDTR's access rights are 0."""
    return not v.is_usable("LDTR") or not has_reserved_rights(v.rights("LDTR"))


def ldtr_granularity(v: EntryView) -> bool:
    """G fits a usable LDTR's limit."""
    return not v.is_usable("LDTR") or is_granular(v.limit("LDTR"), v.rights("LDTR"))


def table_bases(v: EntryView) -> bool:
    """The bases of GDTR and IDTR are canonical."""
    return all(v.is_canonical(v[f]) for f in (Field.GUEST_GDTR_BASE, Field.GUEST_IDTR_BASE))


def table_limits(v: EntryView) -> bool:
    """The limits of GDTR and IDTR have 16 bits."""
    return all(v[f] >> 16 == 0 for f in (Field.GUEST_GDTR_LIMIT, Field.GUEST_IDTR_LIMIT))


SEGMENT_CHECKS = (
    tr_selector, ldtr_selector, ss_selector, v8086_bases, tr_fs_gs_bases, ldtr_base, cs_base,
    ss_ds_es_bases, v8086_limits, v8086_rights, cs_type, ss_type, data_types,
    segments_are_code_or_data, cs_dpl, ss_dpl_is_rpl, ss_dpl_without_protection, data_dpls,
    segments_are_present, segments_reserved, cs_size, segments_granularity, tr_type, tr_is_system,
    tr_is_present, tr_reserved, tr_granularity, tr_is_usable, ldtr_type, ldtr_is_system,
    ldtr_is_present, ldtr_reserved, ldtr_granularity, table_bases, table_limits,
)  # fmt: skip
