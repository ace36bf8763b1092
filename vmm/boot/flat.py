"""Flat binaries: bare 16-bit code at 0:0x7c00, where a PC starts what it has read from a disk.

The stack begins below the image. There is no BIOS behind it: no interrupt service is there.
"""

from vmm.boot.layout import Layout
from vmm.boot.plan import BootPlan, Mode, StartState
from vmm.boot.request import BootRequest, refuse_extras

LOAD = 0x7C00


def plan_flat(data: bytes, request: BootRequest) -> BootPlan:
    """Plan a flat image: real mode, CS = DS = SS = 0, IP = SP = 0x7c00."""
    refuse_extras(request, "flat image")
    layout = Layout(request.memory)
    layout.load(LOAD, data, "the flat image")
    return BootPlan("flat", layout.placements(), StartState(Mode.REAL16, LOAD, {"rsp": LOAD}))
