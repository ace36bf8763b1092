"""The initial RAM disk: files in a row, as high in memory as the kernel takes it.

Linux reads cpio archives, packed or not, one after another; between them only zero bytes may lie,
and each begins on a multiple of four (Linux, "initramfs buffer format").
"""

from dataclasses import dataclass

from vmm.boot.layout import PAGE, Layout
from vmm.boot.memmap import HOLE_END, HOLE_START
from vmm.boot.request import BootModule
from vmm.errors import UsageError


@dataclass(frozen=True, slots=True)
class Initrd:
    """Where it lies; size 0 for none."""

    start: int = 0
    size: int = 0


def joined(modules: tuple[BootModule, ...]) -> bytes:
    """Return the files one after another, each from a multiple of four bytes on."""
    if worded := next((module for module in modules if module.cmdline), None):
        raise UsageError(
            f"--initrd {worded.name!r} has words of its own ({worded.cmdline!r}), which Linux has "
            "no place for; put them into --cmdline"
        )
    return b"".join(module.data + bytes(-len(module.data) % 4) for module in modules)


def load_initrd(
    layout: Layout, modules: tuple[BootModule, ...], last: int, *, above_4g: bool = False
) -> Initrd:
    """Place the files as high as can be: up to the address ``last``, or above 4 GiB if allowed."""
    data = joined(modules)
    if not data:
        return Initrd()
    start = layout.find_high(len(data), end=min(last + 1, HOLE_START), align=PAGE)
    if start is None and above_4g:
        start = layout.find_high(len(data), start=HOLE_END, end=1 << 52, align=PAGE)
    if start is None:
        raise layout.no_room(len(data), "initrd")
    layout.load(start, data, "initrd")
    return Initrd(start, len(data))
