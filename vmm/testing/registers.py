"""Registers of a test's guest by name, beyond the general ones: what cases and replays set."""

from typing import Final

from hwmodel.cpu.unicorn import ffi
from vmm.vcpu import Vcpu

SYSTEM: Final = (
    "cr0", "cr2", "cr3", "cr4", "cr8", "dr6", "dr7", "efer", "star", "lstar", "cstar", "fmask",
    "kernel_gs_base", "tsc_aux", "cs", "ss",
)  # fmt: skip
BREAKPOINTS: Final = tuple(f"dr{n}" for n in range(4))


def read_system(vcpu: Vcpu, name: str) -> int:
    """Return one of SYSTEM and BREAKPOINTS, as the guest sees it."""
    if name in BREAKPOINTS:
        return vcpu.regs.dr(int(name[2:]))
    if name in ("cr0", "cr4"):
        return int(getattr(vcpu, f"guest_{name}")())
    return int(getattr(vcpu.regs, name))


def write_system(vcpu: Vcpu, name: str, value: int) -> None:
    """Set one of them."""
    if name in BREAKPOINTS:
        vcpu.vmcs.native.dr[int(name[2:])] = value
    elif name in ("cr0", "cr4"):
        getattr(vcpu, f"set_{name}")(value)
    else:
        setattr(vcpu.regs, name, value)


def system_of(vcpu: Vcpu) -> dict[str, int]:
    """Return all of them."""
    return {name: read_system(vcpu, name) for name in (*SYSTEM, *BREAKPOINTS)}


def raw(vcpu: Vcpu) -> bytes:
    """Return the vCPU's state as it lies in memory: a microsecond, where `system_of` takes ten."""
    return bytes(ffi.buffer(vcpu.vmcs.native))


def system_in(vcpu: Vcpu, state: bytes) -> dict[str, int]:
    """Return what `system_of` would have when `state` was taken."""
    memory, now = ffi.buffer(vcpu.vmcs.native), raw(vcpu)
    memory[:] = state
    try:
        return system_of(vcpu)
    finally:
        memory[:] = now
