"""What `ring1 run` of the demo kernel costs besides the guest: time to start, and memory.

Start: from the spawn of the process to the first serial byte, which the guest writes a few thousand
instructions after its first one; so the figure is an upper bound. Memory: the peak resident size
(VmHWM) of a process that ran the demo, all of it; what the guest touched of its own memory is part
of it, so this is an upper bound too. Byte code is cached, as after any first run, whatever the
environment says about writing it.
"""

import os
import re
import subprocess
import sys
import time
from tempfile import TemporaryDirectory

from vmm.cli.benchmarks.machines import image
from vmm.cli.benchmarks.row import Bound, Row, middle

_RUN = ["run", "--memory", "64M"]
_START_LIMIT, _MEMORY_LIMIT = 0.25, 150
_PROGRAM = """
import sys
from vmm.cli.main import main
status = main(sys.argv[1:])
print(open("/proc/self/status", encoding="ascii", errors="replace").read())
"""


def measure(runs: int) -> list[Row]:
    """Return the rows; times are wall time, with CPU time beside them in the note."""
    with TemporaryDirectory() as folder:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = folder
        _start(environment)
        seen = middle([_start(environment) for _ in range(max(runs, 3))])
        peak = _peak_mebibytes(environment)
    return [
        Row(
            "start", "process start to first serial byte", "s", seen["first"],
            bounds=(Bound("s", seen["first"], _START_LIMIT),),
            note=f"CPU {seen['first_cpu']:.3f} s",
        ),
        Row(
            "start", "ring1 run of the demo, in all", "s", seen["all"],
            note=f"CPU {seen['all_cpu']:.3f} s",
        ),
        Row("start", "peak memory, the guest's touched pages included", "MiB", peak,
            bounds=(Bound("MiB", peak, _MEMORY_LIMIT),)),
    ]  # fmt: skip


def _start(environment: dict[str, str]) -> dict[str, float]:
    command = [sys.executable, "-m", "vmm", *_RUN, str(image("hello.elf"))]
    began = time.monotonic()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 1)
        first = time.monotonic() - began
        first_cpu = time.clock_gettime((~process.pid << 3) | 2)
        while os.read(process.stdout.fileno(), 4096):
            pass
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
    whole = time.monotonic() - began
    cpu = usage.ru_utime + usage.ru_stime
    return {"first": first, "first_cpu": first_cpu, "all": whole, "all_cpu": cpu}


def _peak_mebibytes(environment: dict[str, str]) -> float:
    command = [sys.executable, "-c", _PROGRAM, *_RUN, str(image("hello.elf"))]
    output = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"VmHWM:\s+(\d+) kB", output)
    return int(found[1]) / 1024 if found else float("nan")
