"""The ways of holding a guest that tests are parametrised over, by name."""

from collections.abc import Mapping
from typing import Any, Final

from vmm.errors import UsageError

HOLDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "vtx": {"technique": "vtx", "mmu": "ept"},
    "vtx+shadow": {"technique": "vtx", "mmu": "shadow"},
    "trap": {"technique": "trap"},
    "svm": {"technique": "svm"},
    "pv": {"technique": "pv"},
}
UNFIT: Final = {"pv": "--technique pv holds kernels made for Xen; an instruction test has none"}
BUILT: Final = ("vtx", "vtx+shadow", "trap")


def options_of(name: str) -> dict[str, Any]:
    """Return the options of `ring1 run` for a way of holding. Raises UsageError."""
    if name not in HOLDS:
        raise UsageError(f"technique {name!r} is not one of {', '.join(HOLDS)}; choose one")
    return dict(HOLDS[name])
