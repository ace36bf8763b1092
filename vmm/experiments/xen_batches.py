"""Batching in the Xen PV ABI: what mmu_update of many and multicall save, by switching it off.

The guest makes the same n updates of a page-table entry by n hypercalls, by one mmu_update and by
one multicall; the hypervisor then cuts each batch short behind every operation, so that the guest
enters it as often as without.
"""

from typing import Any, Final

from vmm.experiments.guests import image, parse
from vmm.experiments.report import Chart, Claim, Report

IMAGE: Final = "xen_batch.elf"
WAYS: Final = ("single", "mmu_update", "multicall")
UPDATES: Final = 1 + 4 + 16 + 64 + 256  # of each way in one run


def run() -> Report:
    """Run the guest with batching and without."""
    rows, series = [], {}
    entries: dict[str, int] = {}
    cycles: dict[str, dict[str, dict[int, int]]] = {}
    for name, on in (("on", True), ("off", False)):
        found, entries[name] = _run(batches=on)
        cycles[name] = found
        rows += [
            (name, way, n, taken, taken / n) for way in WAYS for n, taken in found[way].items()
        ]
        for way in WAYS if on else WAYS[1:]:
            series[f"{way}, batching {name}"] = [(n, c / n) for n, c in found[way].items()]
    return Report(
        "xen_batches",
        "Batches of page-table updates under Xen PV",
        "Cycles for n updates of one page-table entry (`--technique pv --timing cycle`), by n "
        "hypercalls, one mmu_update and one multicall, read by the guest from its TSC; batching is "
        "switched off by cutting every batch short behind each operation. The whole run enters "
        f"the hypervisor {entries['on']:,} times with batching, {entries['off']:,} times without.",
        ("batching", "way", "n", "cycles", "cycles each"),
        tuple(rows),
        tuple(_claims(entries, cycles)),
        Chart("updates", "cycles each", series, log_across=True, log_up=True),
    )


def _claims(entries: dict[str, int], cycles: dict[str, dict[str, dict[int, int]]]) -> list[Claim]:
    saved = entries["off"] - entries["on"]
    expected = 2 * (UPDATES - 5)  # each batch of n saves n - 1 entries; both ways, five sizes
    most = max(cycles["on"]["multicall"])
    ratio = cycles["off"]["multicall"][most] / cycles["on"]["multicall"][most]
    return [
        Claim(
            f"batching saves {saved:,} of {entries['off']:,} entries: one for each operation but "
            "the first of a batch",
            saved == expected,
        ),
        Claim(f"a multicall of {most} costs {ratio:.1f} times as much without it", ratio > 1),
    ]


def _run(*, batches: bool) -> tuple[dict[str, dict[int, int]], int]:
    from vmm import VM

    text = bytearray()
    options: dict[str, Any] = {"memory": "16M", "timing": "cycle", "technique": "pv"}
    with VM(image(IMAGE), serial_output=text.extend, **options) as vm:
        assert vm.domain is not None
        vm.domain.engine.set_option("batches", int(batches))
        vm.run()
        made = vm.domain.engine.counters()["traps"]
        assert isinstance(made, int)
        said = vm.domain.hypercalls()["console_io"]  # the guest's talk
    return parse(bytes(text)), made - said
