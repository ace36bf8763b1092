"""What llvm-mca says of instructions: latency, micro-operations, the ports that they occupy."""

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

CPUS: Final = {
    "cascade-lake": "cascadelake", "haswell": "haswell", "ice-lake-server": "icelake-server",
    "sandy-bridge": "sandybridge", "skylake-x": "skylake-avx512", "zen2": "znver2",
    "zen3": "znver3",
}  # fmt: skip
"""Our tables, and the processors that LLVM calls so."""
_SEPARATOR: Final = "vzeroall"  # no form of ours
_BETWEEN: Final = " ".join(["0x90"] * 15 + ["0xc5", "0xfc", "0x77"])
"""After bytes that it does not know llvm-mc goes on one byte further: it must find its feet."""
_BAD: Final = re.compile(r"<stdin>:(\d+):\d+: warning: (invalid|potentially)", re.MULTILINE)


class McaError(Exception):
    """llvm-mca or llvm-mc is missing or does not answer as expected."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One instruction; `pressure` is by resource, in cycles."""

    latency: int
    uops: int
    loads: bool
    stores: bool
    pressure: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A processor's, in the order in which instructions were asked for; None: it has none."""

    resources: tuple[str, ...]
    timings: tuple[Timing | None, ...]


def _run(words: Sequence[str], text: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise McaError(f"{words[0]} is not here; install it with: apt-get install llvm") from None


def version() -> str:
    """The version of llvm-mca, as "14.0.6". Raises McaError if there is none."""
    said = _run(["llvm-mca", "--version"], "").stdout
    found = re.search(r"LLVM version ([\d.]+)", said)
    if not found:
        raise McaError(f"llvm-mca does not tell its version: {said[:60]!r}")
    return found[1]


def disassemble(codes: Sequence[bytes]) -> list[str | None]:
    """Return each instruction in LLVM's words, None where it does not know it."""
    words = ["llvm-mc", "--disassemble", "--triple=x86_64", "--mattr=+avx2,+bmi,+bmi2,+adx,+sha"]
    hexed = [" ".join(f"0x{byte:02x}" for byte in code) for code in codes]
    answer = _run(words, "".join(f"{line}\n{_BETWEEN}\n" for line in hexed))
    bad = {int(line) for line, _ in _BAD.findall(answer.stderr)}
    parts = re.split(rf"^\s*{_SEPARATOR}\s*$", answer.stdout, flags=re.MULTILINE)
    if len(parts) != len(codes) + 1:
        raise McaError(f"llvm-mc answered {len(parts) - 1} of {len(codes)} instructions")
    cleaned = [_clean(part) for part in parts[:-1]]
    return [None if 2 * n + 1 in bad or not text else text for n, text in enumerate(cleaned)]


def _clean(part: str) -> str:
    lines = [line.split("#")[0].strip() for line in part.splitlines()]
    return " ".join(line for line in lines if line and line != "nop" and line[0] != ".") or "nop"


def measure(table: str, texts: Sequence[str | None]) -> Table:
    """Ask for all of `texts` at once; what llvm-mca refuses is left out and asked again."""
    asked = [n for n, text in enumerate(texts) if text]
    words = ["llvm-mca", "-mtriple=x86_64", f"-mcpu={CPUS[table]}", "-instruction-tables", "-json"]
    while True:
        answer = _run(words, "".join(f"{texts[n]}\n" for n in asked))
        refused = {int(line) - 1 for line in re.findall(r"<stdin>:(\d+):\d+: error", answer.stderr)}
        if not refused:
            break
        asked = [n for place, n in enumerate(asked) if place not in refused]
    return _read(json.loads(answer.stdout), asked, len(texts))


def _read(said: dict[str, object], asked: Sequence[int], count: int) -> Table:
    region = said["CodeRegions"][0]  # type: ignore[index]
    infos = region["InstructionInfoView"]["InstructionList"]
    resources = tuple(said["TargetInfo"]["Resources"])  # type: ignore[index]
    pressure = [[0.0] * len(resources) for _ in infos]
    for use in region["ResourcePressureView"]["ResourcePressureInfo"]:
        if use["InstructionIndex"] < len(infos):
            pressure[use["InstructionIndex"]][use["ResourceIndex"]] = use["ResourceUsage"]
    timings: list[Timing | None] = [None] * count
    for place, info in enumerate(infos):
        timings[asked[place]] = Timing(
            info["Latency"], info["NumMicroOpcodes"], info["mayLoad"], info["mayStore"],
            tuple(pressure[place]),
        )  # fmt: skip
    return Table(resources, tuple(timings))
