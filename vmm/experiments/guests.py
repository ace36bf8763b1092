"""Runs the experiments' guest kernels, and reads the figures that they write on the debug port."""

from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final

from vmm.errors import UsageError

MEMORY: Final = "64M"
Figures = Mapping[str, Mapping[int, int]]
"""By name, a figure for each count: what "=NAME COUNT FIGURE" lines say."""


def image(name: str) -> Path:
    """Return the path of a built guest image. Raises UsageError if it has not been built."""
    with as_file(files("vmm") / "images" / name) as path:
        if path.is_file():
            return path
    raise UsageError(f"the guest image {name} has not been built; run make dev")


def parse(text: bytes) -> dict[str, dict[int, int]]:
    """Return the figures in what a guest wrote."""
    found: dict[str, dict[int, int]] = {}
    for line in text.decode("ascii", "replace").splitlines():
        words = line.split()
        if line.startswith("=") and len(words) == 3:
            found.setdefault(words[0][1:], {})[int(words[1])] = int(words[2])
    return found


def figures(name: str, **options: Any) -> tuple[dict[str, dict[int, int]], Any]:
    """Run an image in `cycle` timing to its end; its figures, and the result."""
    from vmm import VM

    text = bytearray()
    options = {"memory": MEMORY, "timing": "cycle", "dialects": "native", **options}
    with VM(image(name), serial_output=text.extend, **options) as vm:
        result = vm.run()
    return parse(bytes(text)), result
