"""Modules (initrds): put after everything of the image, each on a page of its own."""

from dataclasses import dataclass

from vmm.boot.layout import PAGE, Layout
from vmm.boot.request import BootModule


@dataclass(frozen=True, slots=True)
class Loaded:
    """A module in guest memory; ``words`` is its name and command line."""

    start: int
    size: int
    words: bytes

    @property
    def end(self) -> int:
        """Return the first address after the module."""
        return self.start + self.size


def load_modules(layout: Layout, modules: tuple[BootModule, ...]) -> tuple[Loaded, ...]:
    """Place the modules in order, page-aligned; an empty one has an address and no bytes."""
    loaded = []
    for module in modules:
        name = f"module {module.name}"
        start = layout.put(module.data, name, start=layout.top(), align=PAGE)
        loaded.append(Loaded(start, len(module.data), module.words))
    return tuple(loaded)
