"""What a PV guest costs: `python -m tests.linux.measure_xen [ROUNDS]` boots Debian's generic kernel
as PV and as vtx in turn, CPU seconds, medians; and what the validator's share of it is.

A kernel cannot boot without the validator: its tables would have no types. So it boots with every
entry validated MANY times, and what that takes more is divided; noise is divided with it.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hwmodel.cpu.xen import XenEngine
from tests.linux.guests import PROMPT, Boot, Console, initrd_for
from vmm.cli.kernels import Flavour, fetch_kernel

WORDS = "cryptomgr.notests"
PV: dict[str, Any] = {"technique": "pv", "cmdline": f"console=hvc0 {WORDS}", "dialects": None}
MANY = 101
MORE = f"pv, {MANY} x"
VTX: dict[str, Any] = {"cmdline": f"console=ttyS0 {WORDS}"}


class Marked(Console):
    """Notes the CPU time of the banner."""

    banner = 0.0

    def write(self, data: bytes) -> None:
        super().write(data)
        if not self.banner and b"Linux version" in self.said:
            self.banner = time.process_time()


def boot(guest: Boot, **options: Any) -> tuple[float, float, int]:
    """CPU seconds to the banner and from there to the prompt; instructions."""
    console = Marked([])
    with guest.vm(console, memory="512M", **options) as vm:
        console.steps.append((PROMPT, lambda: vm.interrupt("interrupted")))
        start = time.process_time()
        result = vm.run()
        return console.banner - start, time.process_time() - console.banner, result.instructions


def main(rounds: int) -> None:
    kernel = fetch_kernel(Flavour.GENERIC)
    real, times = XenEngine.start, [1]

    def start(engine: XenEngine, *arguments: Any) -> int:
        engine.set_option("validates", times[0])
        return real(engine, *arguments)

    XenEngine.start = start  # type: ignore[assignment, method-assign]
    with tempfile.TemporaryDirectory() as folder:
        guest = Boot(kernel, initrd_for(kernel, Path(folder)))
        runs: dict[str, list[tuple[float, float, int]]] = {"pv": [], MORE: [], "vtx": []}
        for _ in range(rounds):
            for name, found in runs.items():
                times[0] = MANY if name == MORE else 1
                found.append(boot(guest, **(VTX if name == "vtx" else PV)))
    for name, found in runs.items():
        before, after, counts = zip(*found, strict=True)
        figures = f"{statistics.median(before):.2f} s, {statistics.median(after):.2f} s"
        sys.stdout.write(f"{name:10} {figures}, {sorted(set(counts))} instructions\n")
    shares = [
        (sum(more[:2]) - sum(once[:2])) / (MANY - 1) / sum(once[:2])
        for once, more in zip(runs["pv"], runs[MORE], strict=True)
    ]
    sys.stdout.write(f"the validator: {100 * statistics.median(shares):.2f} % of the boot\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 3)
