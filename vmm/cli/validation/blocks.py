"""Block costs against the host's processor and llvm-mca, on blocks held out by a seed."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import capstone
import keystone

from hwmodel.cpu.pace import block_cycles
from hwmodel.timing.tables.mca import CPUS
from vmm.cli.validation.figure import Figure
from vmm.cli.validation.generated import COUNT, HELD_OUT, KINDS, SEED, Block, blocks

SECTION = f"Block costs: {COUNT} generated blocks, {HELD_OUT:.0%} held out by seed {SEED}"
# Linux asm/intel-family.h, and AMD's families: family and model to the name of a table.
_HOSTS = {
    (6, 0x55): "skylake-x", (6, 0x6A): "ice-lake-server", (6, 0x6C): "ice-lake-server",
    (6, 0x3F): "haswell", (6, 0x3C): "haswell", (6, 0x2D): "sandy-bridge", (6, 0x2A): "sandy-bridge",
    (23, 0x31): "zen2", (25, 0x01): "zen3", (25, 0x21): "zen3",
}  # fmt: skip


def host_table() -> str | None:
    """The table for this host's processor by CPUID's family and model, None: there is none."""
    words: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        words.setdefault(key.strip(), value.strip())
    return _HOSTS.get((int(words.get("cpu family", 0)), int(words.get("model", 0))))


def assembled(block: Block) -> bytes:
    """The block's machine code, without the loop's end."""
    assembler = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)
    code, _ = assembler.asm("\n".join(block.lines))
    return bytes(code or b"")


def predicted(table: str, code: bytes) -> float:
    """Our cost of a round, in cycles."""
    whole = code + b"\x49\xff\xcf\x0f\x85" + (-len(code) - 9).to_bytes(4, "little", signed=True)
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    lengths = [size for _, size, _, _ in decoder.disasm_lite(whole, 0)]
    return block_cycles(table, whole, lengths)


def measured(codes: Sequence[bytes]) -> list[float]:
    """Cycles of a round on this processor."""
    words = [sys.executable, "-m", "vmm.cli.validation.native"]
    lines = "\n".join(code.hex() for code in codes)
    answer = subprocess.run(words, input=lines, capture_output=True, text=True, check=True)
    return [float(line) for line in answer.stdout.split()]


def by_llvm(table: str, all_blocks: Sequence[Block]) -> list[float] | None:
    """llvm-mca's cycles of a round, None without it."""
    text = [".intel_syntax noprefix"]
    for block in all_blocks:
        text += [f"# LLVM-MCA-BEGIN b{block.number}", f"again{block.number}:", *block.lines]
        text += ["dec r15", f"jnz again{block.number}", "# LLVM-MCA-END"]
    words = ["llvm-mca", "-mtriple=x86_64", f"-mcpu={CPUS[table]}", "-json", "-iterations=100"]
    try:
        answer = subprocess.run(
            words, input="\n".join(text) + "\n", capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    if answer.returncode:
        return None
    regions = json.loads(answer.stdout)["CodeRegions"]
    return [region["SummaryView"]["TotalCycles"] / 100 for region in regions]


def mean_error(predictions: Sequence[float], truth: Sequence[float]) -> float:
    """Mean absolute relative error."""
    return fmean(abs(p / t - 1) for p, t in zip(predictions, truth, strict=True))


def measure() -> list[Figure]:
    """Compare on this host; nothing where no table is for its processor."""
    table = host_table()
    if table is None:
        return []
    all_blocks = blocks()
    codes = [assembled(block) for block in all_blocks]
    ours, truth = [predicted(table, code) for code in codes], measured(codes)
    llvm = by_llvm(table, all_blocks)
    rows = [_of_kind(table, kind, all_blocks, ours, truth) for kind in KINDS]
    for name, part in (("held out", True), ("tuned on", False)):
        chosen = [n for n, block in enumerate(all_blocks) if block.held_out is part]
        real = [truth[n] for n in chosen]
        error = 100 * mean_error([ours[n] for n in chosen], real)
        other = f"{100 * mean_error([llvm[n] for n in chosen], real):.1f}" if llvm else "not here"
        what = f"mean absolute error of {len(chosen)} blocks, {name}"
        rows.append(Figure(SECTION, table, what, "%", error, None, f"llvm-mca's own: {other}"))
    return rows + [row for name in CPUS if (row := _against_llvm(name, all_blocks, codes))]


def _against_llvm(table: str, all_blocks: Sequence[Block], codes: Sequence[bytes]) -> Figure | None:
    """How far the table's prices are from llvm-mca's; None without llvm-mca."""
    theirs = by_llvm(table, all_blocks)
    if theirs is None:
        return None
    away = 100 * mean_error([predicted(table, code) for code in codes], theirs)
    what = f"mean distance from llvm-mca, {len(codes)} blocks"
    note = "No error: where both can be measured llvm-mca is further off than this"
    return Figure(SECTION, table, what, "%", away, None, "llvm-mca of the same blocks", note=note)


def _of_kind(table: str, kind: str, all_blocks: Sequence[Block], ours: Sequence[float],
             truth: Sequence[float]) -> Figure:  # fmt: skip
    chosen = [b.number for b in all_blocks if b.held_out and b.kind == kind]
    error = mean_error([ours[n] for n in chosen], [truth[n] for n in chosen])
    return Figure(
        SECTION, table, f"{kind}: mean of {len(chosen)} blocks, held out", "cycles a round",
        fmean(ours[n] for n in chosen), fmean(truth[n] for n in chosen), "measured on this host",
        note=f"Mean absolute error of a block {error:.1%}",
    )  # fmt: skip
