"""ring1's hypervisor: `VM`, `Config`, and what a run says.

with VM("kernel.elf", memory="64M") as vm:
    for vmexit in vm:
        print(vmexit, hex(vm.regs.rip))
"""

from vmm.config import Config
from vmm.errors import InternalError, NotBuiltError, Ring1Error, UsageError
from vmm.outcome import Outcome, Result, StopReason
from vmm.vm import VM

__all__ = [
    "VM",
    "Config",
    "InternalError",
    "NotBuiltError",
    "Outcome",
    "Result",
    "Ring1Error",
    "StopReason",
    "UsageError",
]
