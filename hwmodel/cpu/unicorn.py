"""Hands the libraries inside the Python packages to the C engine, which refuses a wrong one.

The only module that knows where Unicorn and capstone lie. They are opened by path in C; their
Python bindings are not imported, which would cost more time than a small guest's whole run.
"""

from importlib import util
from pathlib import Path
from typing import Final

from hwmodel import _native


class EngineRefusedError(ImportError):
    """The native engine cannot be used here; one line says what to install."""


def _library(package: str, *names: str) -> bytes:
    """Return the path of the shared library that an installed package carries."""
    spec = util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        for name in names:
            if (path := Path(folder) / "lib" / name).exists():
                return bytes(path)
    raise EngineRefusedError(f"the package {package} carries no {names[0]}: pip install {package}")


def _bind() -> None:
    unicorn = _library("unicorn", "libunicorn.so.2")
    capstone = _library("capstone", "libcapstone.so", "libcapstone.so.5")
    if _native.lib.bind_libraries(unicorn, capstone):
        raise EngineRefusedError(_native.ffi.string(_native.lib.binding_error()).decode())


_bind()
ffi: Final = _native.ffi
lib: Final = _native.lib


def versions() -> dict[str, str]:
    """Return the versions of the bound libraries."""
    u, c = lib.unicorn_version(), lib.capstone_version()
    return {
        "unicorn": f"{u >> 24}.{u >> 16 & 255}.{u >> 8 & 255}",
        "capstone": f"{c >> 8}.{c & 255}",
    }


def probe() -> list[tuple[str, str, bool]]:
    """Return (name, value, agrees) of every fact about Unicorn that was proved at start."""
    rows = [(name, version, True) for name, version in versions().items()]
    for index in range(lib.probe_count()):
        name = ffi.string(lib.probe_name(index)).decode()
        rows.append((name, f"{lib.probe_value(index):#x}", True))
    return rows
