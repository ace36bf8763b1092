"""What an image is, told by its content alone, and the loader that goes with it.

Order matters and follows QEMU's -kernel: a multiboot header wins over what carries it, a PVH note
over a plain ELF start; what is left without any mark is a flat binary, if nothing says otherwise.
"""

from collections.abc import Callable
from enum import StrEnum

from vmm.boot import multiboot1, multiboot2
from vmm.boot.elf import MAGIC, ElfImage, plan_elf
from vmm.boot.flat import plan_flat
from vmm.boot.foreign import refuse_bios, refuse_foreign
from vmm.boot.linux.header import is_bzimage
from vmm.boot.multiboot1 import plan_multiboot1
from vmm.boot.multiboot2 import plan_multiboot2
from vmm.boot.plan import BootPlan
from vmm.boot.pvh import plan_pvh, pvh_entry
from vmm.boot.request import BootRequest


class Kind(StrEnum):
    """The kinds of image that start."""

    MULTIBOOT1 = "multiboot1"
    MULTIBOOT2 = "multiboot2"
    PVH = "pvh"
    BZIMAGE = "bzimage"
    ELF32 = "elf32"
    ELF64 = "elf64"
    FLAT = "flat"


def _plan_bzimage(data: bytes, request: BootRequest) -> BootPlan:
    from vmm.boot.linux.bzimage import plan_bzimage  # with what unpacks kernels

    return plan_bzimage(data, request)


_LOADERS: dict[Kind, Callable[[bytes, BootRequest], BootPlan]] = {
    Kind.MULTIBOOT1: plan_multiboot1,
    Kind.MULTIBOOT2: plan_multiboot2,
    Kind.PVH: plan_pvh,
    Kind.BZIMAGE: _plan_bzimage,
    Kind.ELF32: plan_elf,
    Kind.ELF64: plan_elf,
    Kind.FLAT: plan_flat,
}


def identify(data: bytes) -> Kind:
    """Return the kind of ``data``; raise UsageError for what ring1 cannot start, by name."""
    if data.startswith(MAGIC):
        image = ElfImage(data)  # an ELF for another machine is refused before all else
        if kind := _multiboot(data):
            return kind
        if pvh_entry(image) is not None:
            return Kind.PVH
        return Kind.ELF64 if image.bits == 64 else Kind.ELF32
    if is_bzimage(data):
        return Kind.BZIMAGE
    if kind := _multiboot(data):
        return kind
    refuse_foreign(data)
    refuse_bios(data)
    return Kind.FLAT


def plan(data: bytes, request: BootRequest) -> BootPlan:
    """Return how to start ``data``; every fault of the image is a UsageError."""
    return _LOADERS[identify(data)](data, request)


def _multiboot(data: bytes) -> Kind | None:
    if multiboot1.find_header(data):
        return Kind.MULTIBOOT1
    return Kind.MULTIBOOT2 if multiboot2.find_header(data) else None
