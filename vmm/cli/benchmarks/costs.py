"""What single operations cost: exits handled in Python, traps resolved in C, delivered events."""

import time
from typing import Final

from vmm.cli.benchmarks.machines import MEMORY, image, on_qemu, on_ring1, qemu_missing
from vmm.cli.benchmarks.marks import MarkReader
from vmm.cli.benchmarks.row import Bound, Row, middle

IMAGE: Final = "bench_costs.elf"
_QEMU_FACTOR = (
    10  # another process's CPU clock moves in steps of a tick, and QEMU is quick at these
)
_WORDS: Final = {
    "cpuid": "CPUID exit, Python",
    "out": "OUT exit, Python",
    "rdmsr-apic-base": "RDMSR exit, Python",
    "mmio-load": "MMIO load exit, Python",
    "mmio-store": "MMIO store exit, Python",
    "mov-cr0": "MOV from CR0, in C",
    "clts": "CLTS, in C",
    "rdmsr-fs-base": "RDMSR FS_BASE, in C",
    "pushf-popf": "PUSHF; POPF, in C",
    "sti-cli": "STI; CLI, native",
    "page-fault-delivered": "#PF, delivered to its handler",
    "page-fault": "#PF, handler, IRETQ",
    "int-iretq": "INT n, IRETQ",
    "cr3-16-pages": "MOV CR3, 16 pages touched",
    "empty": "a loop around nothing",
}
_LIMITS: Final = {  # microseconds: the issue's; delivery within the 0.5 of QEMU that DESIGN asks
    "cpuid": 2.5, "mmio-load": 6, "mmio-store": 6,
    "mov-cr0": 0.3, "clts": 0.3, "rdmsr-fs-base": 0.3, "pushf-popf": 0.6,
    "page-fault-delivered": 0.7,
}  # fmt: skip
_HALF_OF_QEMU: Final = {"page-fault", "int-iretq", "cr3-16-pages"}


def measure(runs: int, percent: int) -> list[Row]:
    """Return a row an operation, in microseconds."""
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    enters: list[float] = []
    for _ in range(runs):
        ours.append(on_ring1(IMAGE, percent))
        enters.append(_enter(200 * percent))
        if not qemu_missing():
            theirs.append(on_qemu(IMAGE, percent * _QEMU_FACTOR))
    bare = middle([{"enter": seconds} for seconds in enters])["enter"] * 1e6
    figures, peers = middle(ours), middle(theirs)
    rows = [_row(name, figures[name] * 1e6, peers.get(name)) for name in _WORDS]
    return [*rows, Row("cost", "pcpu.enter to a CPUID exit and back", "us", bare)]


def _row(name: str, ours: float, peer: float | None) -> Row:
    bounds = []
    if name in _LIMITS:
        bounds.append(Bound("us", ours, _LIMITS[name]))
    if name in _HALF_OF_QEMU and peer:
        bounds.append(Bound("of qemu", ours / (peer * 1e6), 0.5))
    peers = {"qemu": peer * 1e6} if peer else {}
    return Row("cost", _WORDS[name], "us", ours, peers, tuple(bounds))


def _enter(rounds: int) -> float:
    """CPU seconds of a bare `pcpu.enter` and the step past the instruction, without a handler."""
    from vmm import VM

    marks = MarkReader(time.process_time)
    with VM(image(IMAGE), memory=MEMORY, cmdline="1000", serial_output=marks.feed) as vm:
        for vmexit in vm:
            if marks.measuring == "cpuid" and vmexit.name == "CPUID":
                break
        vmcs = vm.current.vmcs
        enter, skip = vm.pcpu.entry_of(vmcs), vmcs.skip_exit
        began = time.process_time()
        for _ in range(rounds):
            enter(1 << 62)
            skip()
        return (time.process_time() - began) / rounds
