"""Runs a benchmark image under the cycle model; figures in cycles of the virtual clock."""

from functools import partial
from typing import Any, Final

from hwmodel.timing.prices import fill_bare
from vmm.cli.benchmarks.machines import image
from vmm.cli.benchmarks.marks import MarkReader

MEMORY: Final = "128M"


def repeated(
    name: str, *, bare: bool = False, percent: int = 10, **options: Any
) -> dict[str, float]:
    """Return cycles a repetition, less an empty loop's, by the row's name.

    `bare`: as on bare metal, where neither exits nor nested tables cost anything.
    """
    from vmm import VM

    marks = MarkReader(lambda: vm.clock.now)
    text = str(percent)
    vm = VM(
        image(name),
        memory=MEMORY,
        cmdline=text,
        timing="cycle",
        serial_output=marks.feed,
        **options,
    )
    with vm:
        if bare:
            vm.pcpu.set_prices(partial(fill_bare, model=vm.model))
        vm.run()
    empty = marks.seconds["empty"]
    return {row: cycles - empty for row, cycles in marks.seconds.items()}


def figures(name: str, **options: Any) -> dict[str, dict[int, int]]:
    """Return what the guest itself measured: by name, a figure for each count."""
    from vmm import VM

    text = bytearray()
    with VM(image(name), memory=MEMORY, timing="cycle", serial_output=text.extend, **options) as vm:
        vm.run()
    found: dict[str, dict[int, int]] = {}
    for line in text.decode("ascii", "replace").splitlines():
        if line.startswith("="):
            row, count, figure = line[1:].split()
            found.setdefault(row, {})[int(count)] = int(figure)
    return found
