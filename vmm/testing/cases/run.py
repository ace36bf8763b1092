"""A case on a guest: what differs from what it expects."""

from collections.abc import Iterator
from typing import Any, Final

from vmm.testing.cases.case import FLAGS, XMM, Case
from vmm.testing.failure import registers
from vmm.testing.guest import Guest
from vmm.testing.registers import BREAKPOINTS, SYSTEM, read_system, write_system

_MASKED: Final = {"rflags": ~2}


def load_case(guest: Guest, case: Case) -> None:
    """Put the guest into the case's initial state."""
    guest.reset(case.environment)
    if isinstance(case.code, bytes):
        guest.load(case.code)
    else:
        guest.asm(case.code)
    for at, data in case.memory.items():
        guest.memory.write(at, data)
    for name, value in case.registers.items():
        write_register(guest, name, value)
    guest.control(**case.controls)
    guest.intercept(*case.intercept)
    if case.limit is not None:
        guest.limit = case.limit


def write_register(guest: Guest, name: str, value: int) -> None:
    """Set a register by name."""
    if name in XMM:
        guest.set_xmm(int(name[3:]), value)
    elif name in (*SYSTEM, *BREAKPOINTS):
        write_system(guest.current, name, value)
    else:
        setattr(guest.regs, name, value)


def read_register(guest: Guest, name: str) -> int:
    """Return a register of the program, by name, as the guest sees it."""
    if name in XMM:
        return guest.xmm(int(name[3:]))
    if name in (*SYSTEM, *BREAKPOINTS):
        return read_system(guest.current, name)
    return registers(guest)[name]


def mismatches(guest: Guest, case: Case) -> Iterator[str]:
    """Run the case; yield what is not as expected, ours first."""
    load_case(guest, case)
    guest.run()
    yield from _ending(guest, case)
    for name, wanted in case.expect.registers.items():
        if (found := read_register(guest, name)) != wanted:
            yield f"{name} is {found:#x}, expected {wanted:#x}"
    flags = registers(guest)["rflags"]
    for name, wanted in case.expect.flags.items():
        if flags >> FLAGS[name] & 1 != wanted:
            yield f"flag {name} is {flags >> FLAGS[name] & 1}, expected {wanted}"
    for at, wanted_bytes in case.expect.memory.items():
        if (data := guest.memory.read(at, len(wanted_bytes))) != wanted_bytes:
            yield f"memory at {at:#x} is {data.hex(' ')}, expected {wanted_bytes.hex(' ')}"
    if case.expect.exits is not None and guest.technique == "vtx":
        yield from _exits(guest, case)


def _ending(guest: Guest, case: Case) -> Iterator[str]:
    assert guest.outcome is not None
    if guest.outcome.reason != case.expect.reason:
        yield f"ended by {guest.outcome.reason}, expected {case.expect.reason}"
    fault, wanted = guest.fault, case.expect.fault
    if wanted is None or fault is None:
        if (wanted is None) != (fault is None):
            yield f"fault is {fault or 'none'}, expected {dict(wanted) if wanted else 'none'}"
        return
    for name, value in wanted.items():
        if (found := getattr(fault, name)) != value:
            yield f"fault {fault}: {name} is {_hex(found)}, expected {value:#x}"


def _exits(guest: Guest, case: Case) -> Iterator[str]:
    assert case.expect.exits is not None
    found = guest.exits
    if len(found) != len(case.expect.exits):
        names = ", ".join(vmexit.name for vmexit in found)
        yield f"{len(found)} exits ({names}), expected {len(case.expect.exits)}"
    for n, (vmexit, wanted) in enumerate(zip(found, case.expect.exits, strict=False), 1):
        for name, value in wanted.items():
            if (seen := getattr(vmexit, name)) != value:
                yield f"exit {n} {vmexit}: {name} is {_hex(seen)}, expected {value:#x}"


def _hex(value: Any) -> str:
    return hex(value) if isinstance(value, int) else str(value)
