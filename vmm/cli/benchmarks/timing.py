"""What knowing the cycles costs: kernel work and loops in each timing, the price of a new block.

The mix runs in each timing in turn, in processor time of this process. A new block is one of a
thousand and more: what its first run takes more under `cycle` than under `fast`.
"""

import time
from statistics import median
from typing import TYPE_CHECKING, Final

from vmm.cli.benchmarks.machines import MEMORY, image
from vmm.cli.benchmarks.row import Bound, Row, middle

if TYPE_CHECKING:
    from vmm.testing.guest import Guest

_MIX: Final = (("bench_costs.elf", 20), ("bench_loop.elf", 10))
_OVERHEAD: Final = 1.25
_DETAILED_RATE: Final = 15.0  # million instructions a second, at least
_BLOCKS: Final = 1500
_LENGTHS: Final = (4, 24)
_BODY: Final = (
    "4801d8", "488b4708", "4889c2", "480fafc1", "4883c210", "48894f10", "31f6", "4885c0",
)  # fmt: skip
"""add rax, rbx; mov rax, [rdi + 8]; mov rdx, rax; imul; add rdx, 16; a store; xor; test"""


def measure(runs: int, percent: int) -> list[Row]:
    """Return the rows: the mix under `cycle` and `detailed`, new blocks of two lengths."""
    return [*_mix(runs, percent), *(_new_block(length, runs) for length in _LENGTHS)]


def _mix(runs: int, percent: int) -> list[Row]:
    rounds: list[dict[str, float]] = []
    rates: list[float] = []
    for _ in range(runs):
        seconds = {"fast": 0.0, "cycle": 0.0}
        for name, share in _MIX:
            for timing in seconds:
                seconds[timing] += _run(name, max(share * percent // 100, 1), timing)[0]
        rounds.append(seconds)
        spent, instructions = _run("bench_loop.elf", max(percent // 100, 1), "detailed")
        rates.append(instructions / spent / 1e6)
    figures, rate = middle(rounds), median(rates)
    ratio = figures["cycle"] / figures["fast"]
    return [
        Row("timing", "kernel work and loops, --timing cycle", "s", figures["cycle"],
            bounds=(Bound("of fast", ratio, _OVERHEAD),), note=f"fast: {figures['fast']:.3g} s"),
        Row("timing", "loops, --timing detailed, an instruction", "ns", 1e3 / rate,
            bounds=(Bound("ns", 1e3 / rate, 1e3 / _DETAILED_RATE),),
            note=f"{rate:.1f} million instructions a second"),
    ]  # fmt: skip


def _run(name: str, percent: int, timing: str) -> tuple[float, int]:
    """Processor seconds, and instructions."""
    from vmm import VM

    with VM(image(name), memory=MEMORY, cmdline=str(percent), timing=timing) as vm:
        began = time.process_time()
        result = vm.run()
        return time.process_time() - began, result.instructions


def _new_block(length: int, runs: int) -> Row:
    """What pricing adds to a block's first run; the bound is 1 us and 0.7 us an instruction."""
    samples: dict[str, list[float]] = {"fast": [], "cycle": []}
    for _ in range(max(2 * runs, 5)):
        for timing, seconds in samples.items():
            seconds.append(_first_run(length, timing))
    figures = {timing: min(seconds) / _BLOCKS * 1e6 for timing, seconds in samples.items()}
    most = 1 + 0.7 * length
    added = figures["cycle"] - figures["fast"]
    return Row(
        "timing", f"price of a new block of {length} instructions", "us", added,
        bounds=(Bound("us", added, most),), note=f"translated and run: {figures['cycle']:.3g} us",
    )  # fmt: skip


def _first_run(length: int, timing: str) -> float:
    """Seconds that `_BLOCKS` new blocks take, each a chain's link."""
    from vmm.testing.guest import Guest

    with Guest(memory="64M", timing=timing) as guest:
        _load(guest, length)
        began = time.process_time()
        guest.run()
        return time.process_time() - began


def _load(guest: "Guest", length: int) -> None:
    code = bytearray()
    for block in range(_BLOCKS):
        body = [_BODY[(block + n) % len(_BODY)] for n in range(length - 1)]
        code += bytes.fromhex("".join(body)) + b"\xeb\x00"
    guest.load(bytes(code))
    guest.regs.rdi = guest.data
