"""The three kinds of address, kept apart by type, and page arithmetic."""

from typing import Final, NewType, TypeVar

Gva = NewType("Gva", int)
"""A guest-virtual (linear) address: what guest code uses."""
Gpa = NewType("Gpa", int)
"""A guest-physical address: what the guest takes for physical memory."""
Hpa = NewType("Hpa", int)
"""A host-physical address: an offset into the modelled machine memory."""

PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 1 << PAGE_SHIFT
PAGE_MASK: Final = PAGE_SIZE - 1

A = TypeVar("A", Gva, Gpa, Hpa)


def page_of(address: int) -> int:
    """The number of the 4 KiB page that holds `address`."""
    return address >> PAGE_SHIFT


def page_offset(address: int) -> int:
    """The byte offset of `address` within its page."""
    return address & PAGE_MASK


def page_down(address: A) -> A:
    """The first byte of the page that holds `address`."""
    return type(address)(address & ~PAGE_MASK)


def page_up(address: A) -> A:
    """The first page boundary at or after `address`."""
    return type(address)(address + PAGE_MASK & ~PAGE_MASK)


def bytes_left_in_page(address: int) -> int:
    """How many bytes from `address` to the end of its page: 1 to 4096."""
    return PAGE_SIZE - page_offset(address)


def is_canonical(address: int, linear_bits: int = 48) -> bool:
    """Whether all bits above `linear_bits` - 1 repeat it ("Canonical Addressing")."""
    top = (address & (1 << 64) - 1) >> linear_bits - 1
    return top in (0, (1 << 65 - linear_bits) - 1)


def sign_extend(value: int, width: int) -> int:
    """The `width`-bit number `value`, sign-extended to 64 bits (as an unsigned int)."""
    sign = 1 << width - 1
    return ((value & (sign << 1) - 1) ^ sign) - sign & (1 << 64) - 1
