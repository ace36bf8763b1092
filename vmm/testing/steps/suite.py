"""Files and folders of recorded steps: MOO or JSON, plain or gzipped, with their metadata.json.

The suites are their users' (github.com/SingleStepTests: 8086, 80286 ...); nothing of them is here.
"""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from vmm.errors import UsageError
from vmm.testing.steps.moo import read_moo
from vmm.testing.steps.step import Step, Suite

_ENDINGS: Final = (".moo", ".moo.gz", ".json", ".json.gz")
_METADATA: Final = "metadata.json"
_KNOWN: Final = ("8086", "286")


def files_of(path: Path) -> list[Path]:
    """Return the suite's files at a path: itself, or those in the folder. Raises UsageError."""
    if path.is_file():
        return [path]
    found = [
        file for file in sorted(path.glob("*"))
        if file.name.lower().endswith(_ENDINGS) and file.name != _METADATA
    ] if path.is_dir() else []  # fmt: skip
    if not found:
        raise UsageError(f"{path} holds no single-step suite; give a folder of *.MOO or *.json")
    return found


def read_suite(path: Path) -> Suite:
    """Return one file's steps. Raises UsageError for a file that is none."""
    cpu, opcodes = _metadata(path.parent / _METADATA)
    data = _content(path)
    if path.name.lower().removesuffix(".gz").endswith(".json"):
        steps = list(_of_json(data, path.name, halts=cpu == "286"))
    else:
        cpu, steps = read_moo(data, path.name)
    if cpu not in _KNOWN:
        known = ", ".join(_KNOWN)
        raise UsageError(f"{path.name} is of processor {cpu!r}; there are differences for {known}")
    revoked = _revoked(path.parent)
    steps = [step for step in steps if step.digest not in revoked]
    return Suite(cpu, steps, dict(_masks(opcodes)))


def _content(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix.lower() == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None


def _of_json(data: bytes, name: str, *, halts: bool) -> Iterator[Step]:
    try:
        for row in json.loads(data):
            first, last = row["initial"], row["final"]
            code, event = bytes(row["bytes"]), row.get("exception", {})
            yield Step(
                str(row["name"]), code[:-1] if halts else code, first["regs"], last["regs"],
                dict(first["ram"]), dict(last["ram"]), halts, event.get("number"),
                event.get("flag_address"), str(row.get("hash", row.get("test_hash", ""))),
            )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{name} is no single-step suite: {error!r}") from None


def _metadata(path: Path) -> tuple[str, Mapping[str, Any]]:
    """Return the processor and its opcodes; without a file those of an 8086, all defined."""
    if not path.exists():
        return "8086", {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return str(content.get("cpu", "8086")), content["opcodes"]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path} cannot be read: {error!r}") from None


def _masks(opcodes: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for form, row in opcodes.items():
        if "flags-mask" in row:
            yield form, row["flags-mask"]
        for extension, inner in row.get("reg", {}).items():
            if "flags-mask" in inner:
                yield f"{form}.{extension}", inner["flags-mask"]


def _revoked(folder: Path) -> frozenset[str]:
    """The digests of steps that the suite's author took back, in revocation_list.txt."""
    for path in (folder / "revocation_list.txt", folder.parent / "revocation_list.txt"):
        if path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            return frozenset(line.strip() for line in lines if not line.startswith("#"))
    return frozenset()
