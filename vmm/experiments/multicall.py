"""The amortisation law: n operations in one hypercall cost t_p + t_h / n each.

An operation is a change of a page-table entry with its INVLPG. Where page tables are shadowed each
INVLPG exits; the multicall has one exit for all. The guest reads its own TSC.
"""

from typing import Final

from vmm.experiments.guests import figures
from vmm.experiments.report import Chart, Claim, Report

IMAGE: Final = "bench_native_law.elf"
WITHIN: Final = 0.05


def run() -> Report:
    """Run the guest with shadow tables and with EPT."""
    rows, series = [], {}
    claims: list[Claim] = []
    for mmu in ("shadow", "ept"):
        found, _ = figures(IMAGE, mmu=mmu)
        clock = found["clock"][0]
        traps = {n: (cycles - clock) / n for n, cycles in found["traps"].items()}
        calls = {n: (cycles - clock) / n for n, cycles in found["multicall"].items()}
        each, once = fit(calls)
        law = {n: each + once / n for n in calls}
        rows += [
            (mmu, n, traps[n], calls[n], law[n], f"{calls[n] / law[n] - 1:+.2%}") for n in calls
        ]
        series[f"{mmu}: n instructions"] = list(traps.items())
        series[f"{mmu}: one multicall"] = list(calls.items())
        claims += _claims(mmu, traps, calls, each, once)
    return Report(
        "multicall",
        "The amortisation law",
        "Cycles for each of n changes of a page table (store and INVLPG), by n instructions and by "
        "one multicall, read by the guest from its TSC with caches on (`--timing cycle`), and the "
        "law t_p + t_h / n with t_h and t_p fitted to all n.",
        ("page tables", "n", "instructions", "multicall", "law", "off by"),
        tuple(rows),
        tuple(claims),
        Chart("operations", "cycles each", series, log_across=True),
    )


def fit(calls: dict[int, float]) -> tuple[float, float]:
    """Return t_p and t_h: least squares over total cycles t_h + n t_p, weighted by 1 / n^2."""
    points = [(1 / n, cycles) for n, cycles in calls.items()]
    x_mean = sum(x for x, _ in points) / len(points)
    y_mean = sum(y for _, y in points) / len(points)
    slope = sum((x - x_mean) * (y - y_mean) for x, y in points)
    slope /= sum((x - x_mean) ** 2 for x, _ in points)
    return y_mean - slope * x_mean, slope


def _claims(
    mmu: str, traps: dict[int, float], calls: dict[int, float], each: float, once: float
) -> list[Claim]:
    worst = max(abs(calls[n] / (each + once / n) - 1) for n in calls)
    trap = traps[max(traps)]
    quicker = next((n for n in sorted(calls) if calls[n] < traps[n]), 0)
    claims = [
        Claim(
            f"{mmu}: t_p = {each:.0f}, t_h = {once:.0f} cycles; every n from {min(calls)} to "
            f"{max(calls)} is within {WITHIN:.0%} of the law, the worst is off by {worst:.2%}",
            worst <= WITHIN,
        )
    ]
    if trap <= each:
        text = f"{mmu}: an instruction costs {trap:.0f} cycles, less than t_p: no n is worth a call"
        return [*claims, Claim(text, quicker == 0)]
    formula = once / (trap - each)
    wanted = int(formula) + 1
    text = (
        f"{mmu}: an instruction costs {trap:.0f} cycles, so the formula t_h / (t_trap - t_p) = "
        f"{formula:.2f} has the call quicker from n = {wanted} on; measured: from n = {quicker} on"
    )
    return [*claims, Claim(text, quicker == wanted)]
