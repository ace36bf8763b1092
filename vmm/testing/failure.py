"""What a failed instruction test shows: code, differing registers, exits, how to replay it."""

from collections.abc import Iterator, Mapping
from typing import Final

from hwmodel.vmx.state import GPR_NAMES
from vmm.testing.guest import SHOWN_EXITS, Guest

_BYTES_A_LINE: Final = 8


def disassemble(code: bytes, at: int, bits: int) -> Iterator[str]:
    """Yield a line for each instruction; bytes that are none as such."""
    from capstone import CS_ARCH_X86, CS_MODE_16, CS_MODE_32, CS_MODE_64, Cs  # heavy

    engine = Cs(CS_ARCH_X86, {16: CS_MODE_16, 32: CS_MODE_32, 64: CS_MODE_64}[bits])
    done = 0
    for address, size, name, operands in engine.disasm_lite(code, at):
        raw = code[done : done + size].hex(" ")
        yield f"{address:#x}  {raw:<30} {name} {operands}".rstrip()
        done += size
    if done < len(code):
        yield f"{at + done:#x}  {code[done : done + _BYTES_A_LINE].hex(' ')} ..."


def registers(guest: Guest) -> dict[str, int]:
    """The program's registers: those of the frame where a fault or an INT ended it."""
    found = guest.regs.as_dict()
    if (frame := guest.frame) is not None:
        found |= {"rip": frame.rip, "rflags": frame.rflags}
        if frame.rsp is not None:
            found["rsp"] = frame.rsp
    return found


def report(guest: Guest, replay: str | None = None) -> str:
    """Describe the guest of a failed test in some lines."""
    lines = [f"guest: {guest.environment}, technique {guest.technique}"]
    if guest.loaded is not None:
        lines.append("code:")
        code = guest.loaded
        lines += [f"  {line}" for line in disassemble(code.code, code.at, code.bits)]
    if guest.before:
        lines.append("registers that the run changed (before, after):")
        lines += [f"  {line}" for line in differences(guest.before, registers(guest))]
    outcome = guest.outcome.reason if guest.outcome else "not run"
    lines.append(f"ended: {guest.fault or outcome}")
    lines.append("last exits:")
    lines += [f"  {vmexit}" for vmexit in guest.exits[-SHOWN_EXITS:]] or ["  none"]
    if replay is not None:
        lines.append(f"replay: {replay}")
    return "\n".join(lines)


def differences(before: Mapping[str, int], after: Mapping[str, int]) -> Iterator[str]:
    """Yield the registers that are not the same."""
    for name in (*GPR_NAMES, "rip", "rflags"):
        if before.get(name) != after.get(name):
            yield f"{name:<6} {before.get(name, 0):#x}  {after.get(name, 0):#x}"
