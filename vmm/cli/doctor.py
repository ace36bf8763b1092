"""``ring1 doctor``: versions, probes of the engine, and CPU models, in one table.

It works on a broken installation: what cannot be found out is a row that says so, status 70.
"""

import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

from rich.console import Console
from rich.table import Table

from vmm.boot.files import demo_image
from vmm.errors import InternalError, Ring1Error

_PACKAGES = (
    "ring1",
    "unicorn",
    "capstone",
    "keystone-engine",
    "cffi",
    "pyelftools",
    "typer",
    "rich",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One row: what was looked at, what was found, whether ring1 can work with it."""

    name: str
    value: str
    is_good: bool = True


def doctor() -> int:
    """Print all findings on stdout; return 0, or 70 if one is bad."""
    findings = [*_versions(), *_probes(), *_models(), _demo()]
    table = Table("what", "found", "", title="ring1 doctor", title_justify="left")
    for finding in findings:
        table.add_row(finding.name, finding.value, "ok" if finding.is_good else "BAD")
    Console(highlight=False, markup=False, emoji=False).print(table)
    bad = [finding for finding in findings if not finding.is_good]
    for finding in bad:
        print(f"ring1: {finding.name}: {finding.value}", file=sys.stderr)
    return InternalError.status if bad else 0


def _versions() -> Iterator[Finding]:
    yield Finding("python", platform.python_version())
    yield Finding("machine", f"{platform.system()} {platform.machine()}")
    for package in _PACKAGES:
        try:
            yield Finding(package, version(package))
        except PackageNotFoundError:
            is_self = package == "ring1"  # runs from a source tree as well
            yield Finding(package, "not installed" + "; run make dev" * (not is_self), is_self)


def _probes() -> Iterator[Finding]:
    try:
        engine = import_module("hwmodel.cpu.unicorn")
        for name, value, is_good in engine.probe():
            yield Finding(str(name), str(value), bool(is_good))
    except (ImportError, OSError, Ring1Error, AttributeError, RuntimeError) as error:
        yield Finding("engine", f"{error}; run make build", False)


def _models() -> Iterator[Finding]:
    folder = files("hwmodel") / "arch" / "models"
    names = sorted(
        entry.name.removesuffix(".toml")
        for entry in (folder.iterdir() if folder.is_dir() else ())
        if entry.name.endswith(".toml")
    )
    yield Finding("CPU models", ", ".join(names) or "none; install ring1 again", bool(names))


def _demo() -> Finding:
    try:
        return Finding("demo kernel", f"{len(demo_image())} bytes")
    except Ring1Error as error:
        return Finding("demo kernel", str(error), False)
