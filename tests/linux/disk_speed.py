"""How much `dd` moves per second of host processor time.

    python -m tests.linux.disk_speed [--repeat N] [OPTION,OPTION...]

Each figure is the processor time of a whole run, less that of one that only boots and powers off;
medians. What is written in parentheses after --disk's file may be given: packed, transport=mmio.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.linux.guests import QUICK, initrd_for
from vmm.cli.initramfs import script_archive
from vmm.cli.kernels import Flavour, Kernel, fetch_kernel

MIB = 1 << 20
SIZE = 512
WORK = {
    "read": f"dd if=/dev/vda of=/dev/null bs=1M count={SIZE}",
    "read, O_DIRECT": f"dd if=/dev/vda of=/dev/null bs=1M count={SIZE} iflag=direct",
    "write and fsync": f"dd if=/dev/zero of=/dev/vda bs=1M count={SIZE} conv=fsync",
    "write, O_DIRECT": f"dd if=/dev/zero of=/dev/vda bs=1M count={SIZE} oflag=direct",
}


def processor_time(kernel: Kernel, folder: Path, script: str, options: str) -> float:
    """Run `script` in a guest; return the seconds of user and system time."""
    path, disk = folder / "script.cpio", folder / "disk"
    path.write_bytes(script_archive(script + "\n"))
    with disk.open("wb") as file:
        file.truncate(SIZE * MIB)
    initrd = initrd_for(kernel, folder)
    words = [sys.executable, "-m", "vmm", "run", str(kernel.image), "--cmdline", f"{QUICK} quiet"]
    words += ["--initrd", str(initrd), "--initrd", str(path), "--disk", f"{disk},{options}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    """Print a line for each kind of work."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("options", nargs="?", default="transport=pci")
    chosen = parser.parse_args()
    kernel = fetch_kernel(Flavour.CLOUD)
    with tempfile.TemporaryDirectory() as name:

        def median(script: str) -> float:
            times = range(chosen.repeat)
            runs = [processor_time(kernel, Path(name), script, chosen.options) for _ in times]
            return statistics.median(runs)

        boot = median("true")
        for what, script in WORK.items():
            rate = SIZE / (median(script) - boot)
            sys.stdout.write(f"{what}: {rate:.0f} MiB per second of processor time\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
