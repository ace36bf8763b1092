"""The compute loops: ring1 beside QEMU TCG and bare Unicorn, in turns, so that noise hits all."""

from vmm.cli.benchmarks.bare import on_unicorn
from vmm.cli.benchmarks.machines import on_qemu, on_ring1, qemu_missing
from vmm.cli.benchmarks.row import Bound, Row, middle

IMAGE = "bench_loop.elf"
_FULL = {"mixed": 10_000_000, "tight": 200_000_000, "loads": 10_000_000}  # as loop.c has them
_WORDS = {
    "mixed": "mixed loop, one round",
    "tight": "tight loop, one round",
    "loads": "random load over 64 MiB",
}
_LIMITS = {"qemu": 1.0, "unicorn": 1.5}  # issue: no slower than QEMU, at most 1.5 x bare Unicorn


def measure(runs: int, percent: int) -> list[Row]:
    """Return a row a loop, in nanoseconds a round; only the mixed loop has bounds."""
    seen: dict[str, list[dict[str, float]]] = {"ring1": [], "qemu": [], "unicorn": []}
    counts = {name: max(count * percent // 100, 1) for name, count in _FULL.items()}
    for _ in range(runs):
        seen["ring1"].append(on_ring1(IMAGE, percent))
        if not qemu_missing():
            seen["qemu"].append(on_qemu(IMAGE, percent))
        seen["unicorn"].append(on_unicorn(counts))
    figures = {machine: middle(results) for machine, results in seen.items()}
    return [_row(name, figures) for name in _FULL]


def _row(name: str, figures: dict[str, dict[str, float]]) -> Row:
    ours = figures["ring1"][name]
    peers = {
        machine: result[name] * 1e9
        for machine, result in figures.items()
        if machine != "ring1" and name in result
    }
    bounds = tuple(
        Bound(f"of {machine}", ours * 1e9 / peers[machine], limit)
        for machine, limit in _LIMITS.items()
        if name == "mixed" and machine in peers
    )
    return Row("loop", _WORDS[name], "ns", ours * 1e9, peers, bounds)
