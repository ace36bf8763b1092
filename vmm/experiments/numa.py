"""NUMA hints: two processors whose memory is on each other's node, with and without saying so."""

from typing import Final

from vmm.experiments.guests import figures
from vmm.experiments.report import Claim, Report

IMAGE: Final = "native_numa.elf"
PAGES: Final = 2048  # of one pass: more than the TLB holds
POLICIES: Final = ("credit", "rr")


def run() -> Report:
    """Run the guest on one node, and on two, with and without hints, under each policy."""
    near = _pages(figures(IMAGE, cpus=2, pcpus=2, sched="credit"))
    rows, claims = [("one node", "no", *near)], []
    for policy in POLICIES:
        machine = {"cpus": 2, "pcpus": 2, "numa": 2, "sched": f"{policy},nodes=2"}
        without = _pages(figures(IMAGE, **machine))
        hinted = _pages(figures(IMAGE, cmdline="hints", **machine))
        rows += [(policy, "no", *without), (policy, "yes", *hinted)]
        claims.append(
            Claim(
                f"{policy}: without hints a page costs {without[0] / near[0]:.1f} times what it "
                f"costs near, with hints {hinted[0] / near[0]:.2f} times",
                max(hinted) <= 1.05 * max(near) < 0.2 * min(without),
            )
        )
    return Report(
        "numa",
        "NUMA hints",
        f"Two processors on two physical ones, each with a node; each writes to {PAGES} pages of "
        "the other's node again and again, more than the TLB holds. With hints they say so, and "
        "change places. Cycles a page in the last pass. Memory of the other node costs 57 ns more.",
        ("policy", "hints", "first processor", "second processor"),
        tuple(rows),
        tuple(claims),
    )  # fmt: skip


def _pages(found: tuple[dict[str, dict[int, int]], object]) -> tuple[float, float]:
    """Cycles a page of both processors."""
    passes = found[0]["PASS"]
    return passes[0] / PAGES, passes[1] / PAGES
