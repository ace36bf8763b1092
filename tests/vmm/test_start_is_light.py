"""What a start does not load: half of the time to the first instruction is Python's imports."""

import subprocess
import sys

HEAVY = (
    "capstone",
    "keystone",
    "pycparser",
    "vmm.net",
    "vmm.share",
    "vmm.storage.opening",
    "vmm.virtio.device",
)
SCRIPT = f"""
import sys
import vmm.cli.main, vmm.cli.session
from vmm import VM
with VM() as vm:
    pass
print([name for name in {HEAVY!r} if name in sys.modules])
"""


def test_a_guest_without_devices_of_its_own_loads_none() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"
