"""Two VMs with page caches on a host that has promised both more memory than it has.

They swap (greedy), follow a balloon's target that a daemon sets now and then (balloon), or read the
pressure gauge before they grow (gauge).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from vmm.experiments.guests import image, parse
from vmm.experiments.report import Chart, Claim, Report

IMAGE: Final = "native_pressure.elf"
ARENA, ARENA_PAGES = 0x200_0000, 512
WAYS: Final = ("greedy", "balloon", "gauge")
ROUNDS: Final = 48
FRAMES: Final = (1024, 640, 512)
SHOWN: Final = 640
NO_COLLAPSE: Final = 0.5
"""Of the throughput with enough memory."""
_ACCESSES: Final = 250  # of a round
_WINDOW_NS: Final = 50_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: pages in and out, and of each round the time (ns) and the pages swapped in."""

    swapped_in: int
    swapped_out: int
    misses: int
    times: tuple[int, ...]
    swaps: tuple[int, ...]
    correct: bool


def run() -> Report:
    """Run every way on hosts with enough memory, with less, and with half."""
    found = {(way, frames): two_guests(way, frames) for frames in FRAMES for way in range(3)}
    rows = tuple(
        (
            f"{2 * ARENA_PAGES / frames:.1f}", WAYS[way], one.swapped_in, one.swapped_out,
            one.misses, sum(one.times) / ROUNDS / 1e6, max(one.times) / 1e6,
        )
        for (way, frames), one in found.items()
    )  # fmt: skip
    series = {WAYS[way]: list(enumerate(accumulate(found[way, SHOWN].swaps))) for way in range(3)}
    return Report(
        "pressure",
        "Memory pressure: gauge against balloon",
        f"Two VMs, each with a page cache of up to {ARENA_PAGES} pages on a file of 768, on a host "
        f"with fewer frames; {ROUNDS} rounds of {_ACCESSES} accesses, a disk read or a swap takes "
        "0.1 ms. Swapped pages and misses of both VMs, ms per round of the first. The balloon's "
        "target is set each 100 ms. `--timing fast`.",
        ("promised / there is", "way", "swapped in", "swapped out", "misses", "ms a round",
         "slowest round"),
        rows,
        _claims(found),
        Chart("round", f"pages swapped in, {2 * ARENA_PAGES / SHOWN:.1f} times promised", series),
    )  # fmt: skip


def _claims(found: dict[tuple[int, int], Outcome]) -> tuple[Claim, ...]:
    claims = []
    for frames in FRAMES[1:]:
        greedy, balloon, gauge = (found[way, frames] for way in range(3))
        ratio = f"promised {2 * ARENA_PAGES / frames:.1f} times"
        claims.append(
            Claim(
                f"{ratio}: {gauge.swapped_in} pages swapped in with the gauge, "
                f"{balloon.swapped_in} with the balloon alone, {greedy.swapped_in} with neither",
                gauge.swapped_in < balloon.swapped_in < greedy.swapped_in,
            )
        )
        left = [
            sum(found[way, FRAMES[0]].times) / sum(found[way, frames].times) for way in (0, 1, 2)
        ]
        claims.append(
            Claim(
                f"{ratio}: throughput is {left[2]:.0%} of that with enough memory with the gauge, "
                f"{left[1]:.0%} with the balloon alone; with neither it collapses to {left[0]:.0%}",
                left[2] > left[1] > left[0] and left[2] >= NO_COLLAPSE > left[0],
            )
        )
    right = all(one.correct for one in found.values())
    return (*claims, Claim("every page held what the disk has, at every access", right))


def two_guests(way: int, frames: int, rounds: int = ROUNDS) -> Outcome:
    """Run both in step; figures of the first, swapped pages and misses of both."""
    from vmm import VM
    from vmm.memory.overcommit import HostMemory
    from vmm.pv.native.memory import Memory
    from vmm.pv.native.native import Native
    from vmm.together import run_together

    host, outputs, vms = HostMemory(frames), [bytearray(), bytearray()], []
    swaps: list[int] = []
    for seed, output in enumerate(outputs):
        vm = VM(
            image(IMAGE), memory="64M", timing="fast", dialects="native",
            cmdline=f"way={way} rounds={rounds} seed={seed + 1}",
            serial_output=_heard(output, host, swaps) if not seed else output.extend,
        )  # fmt: skip
        share = host.admit(vm.memory, vm.pager, ARENA, ARENA_PAGES * 4096)
        native = vm.dialects["native"]
        assert isinstance(native, Native)
        part = native.parts["memory"]
        assert isinstance(part, Memory)
        part.join(share)
        vms.append(vm)
    run_together(*vms, window_ns=_WINDOW_NS)
    for vm in vms:
        vm.close()
    texts = [bytes(output) for output in outputs]
    first, second = (parse(text) for text in texts)
    return Outcome(
        sum(guest.swapped_in for guest in host.guests),
        sum(guest.swapped_out for guest in host.guests),
        sum(first["MISSES"].values()) + sum(second["MISSES"].values()),
        tuple(first["TIME"].values()),
        tuple(b - a for a, b in zip([0, *swaps], swaps, strict=False)),
        all(b"SUMMARY" in text and b"FAIL" not in text for text in texts),
    )


def _heard(output: bytearray, host: "object", swaps: list[int]) -> Callable[[bytes], None]:
    """Keep what the guest writes; at the end of each round note how many pages came in."""
    from vmm.memory.overcommit import HostMemory

    assert isinstance(host, HostMemory)

    def hear(data: bytes) -> None:
        output.extend(data)
        if data == b"\n" and output.rsplit(b"\n", 2)[-2].startswith(b"=TIME"):
            swaps.append(sum(guest.swapped_in for guest in host.guests))

    return hear
