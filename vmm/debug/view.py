"""What a debugger shows of a stopped VM. Reading changes nothing: no flag, no cache, no cycle."""

from dataclasses import dataclass
from typing import Any

from hwmodel.arch.vmcs import Field
from hwmodel.mem.reference import Access, Raised, Structure, Translated, Walk
from hwmodel.vmx.exit import Exit
from vmm.debug.session import Session
from vmm.vcpu import Vcpu


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction as text; `code` its bytes."""

    address: int
    code: bytes
    text: str


def disassemble(vcpu: Vcpu, address: int, count: int) -> list[Line]:
    """Decode `count` instructions from a linear address, as far as memory is mapped there."""
    import capstone

    from vmm.virtual import VirtualMemory

    modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
    decoder = capstone.Cs(capstone.CS_ARCH_X86, modes[code_bits(vcpu)])
    memory, found = VirtualMemory(vcpu), list[Line]()
    while len(found) < count:
        code = next((c for n in (15, 8, 4, 2, 1) if (c := memory.look(address, n))), b"")
        if not code:
            break
        one = next(decoder.disasm_lite(code, address, 1), None)
        size, text = (one[1], f"{one[2]} {one[3]}".strip()) if one else (1, f"db {code[0]:#x}")
        found.append(Line(address, code[:size], text))
        address += size
    return found


def code_bits(vcpu: Vcpu) -> int:
    """16, 32 or 64: the size of the code that runs."""
    rights = vcpu.vmcs[Field.GUEST_CS_AR_BYTES]
    if vcpu.regs.efer & 1 << 10 and rights & 1 << 13:
        return 64
    return 32 if rights & 1 << 14 else 16


def code_address(vcpu: Vcpu) -> int:
    """The linear address of the next instruction."""
    if code_bits(vcpu) == 64:
        return int(vcpu.regs.rip)
    return int(vcpu.regs.rip) + vcpu.vmcs[Field.GUEST_CS_BASE] & 0xFFFF_FFFF


def exit_row(vmexit: Exit) -> dict[str, Any]:
    """One exit for a list."""
    return {
        "exit": vmexit.sequence, "reason": vmexit.name, "cycle": vmexit.cycle, "rip": vmexit.rip,
        "qualification": vmexit.qualification, "gpa": vmexit.guest_physical,
        "gla": vmexit.guest_linear,
    }  # fmt: skip


def exit_text(row: dict[str, Any]) -> str:
    """One line of 80 columns."""
    gpa = f" gpa {row['gpa']:#x}" if row["gpa"] else ""
    return (
        f"{row['exit']:>9,} {row['reason']:<18} {row['rip']:#018x} q {row['qualification']:#x}{gpa}"
    )


def fields(vcpu: Vcpu) -> dict[Field, int]:
    """The whole VMCS."""
    return {field: vcpu.vmcs[field] for field in Field}


def since_last_exit(session: Session) -> dict[Field, tuple[int, int]]:
    """What in the VMCS differs from what it was when the previous exit was taken: (then, now).

    Goes there and comes back.
    """
    moment, index = session.now, session.vcpu.index
    now = fields(session.vcpu)
    session.previous_exit()
    then = fields(session.vm.vcpus[index])
    session.goto(moment)
    return {f: (then[f], value) for f, value in now.items() if then[f] != value}


def walk(vcpu: Vcpu, linear: int, access: Access = Access.READ) -> Walk:
    """Every reference that a walk would make now."""
    return vcpu.pcpu.explain_walk(vcpu.vmcs, linear, access)


_LEVELS = {12: "PTE", 21: "PDE", 22: "PDE", 30: "PDPTE", 39: "PML4E", 48: "PML5E"}


def draw_walk(found: Walk) -> list[str]:
    """Draw a two-dimensional walk: a row for each guest entry, the EPT's references before it."""
    lines, row = [], list[str]()
    for ref in found.references:
        if ref.structure is Structure.EPT:
            row.append(f"L{ref.level}")
            continue
        ept = "-".join(row) or "direct"
        lines.append(
            f"{_LEVELS.get(ref.level, '?'):>5} {ref.entry:#018x} at {ref.gpa:#x}  EPT {ept} -> "
            f"{ref.hpa:#x} {ref.verdict.name.lower().replace('_', ' ')}"
        )
        row.clear()
    match found.end:
        case Translated():
            size = {12: "4K", 21: "2M", 22: "4M", 30: "1G"}.get(found.end.shift, "?")
            ept = "-".join(row) or "direct"
            end = f" page gpa {found.end.gpa:#x}  EPT {ept} -> {found.end.hpa:#x} ({size})"
        case Raised():
            end = f"      exception {found.end.vector}, error code {found.end.error:#x}"
        case _:
            end = f"      exit {found.end.reason} about gpa {found.end.gpa:#x}"
    return [*lines, end, f"{len(found.references)} references"]


def walk_data(found: Walk) -> dict[str, Any]:
    """A walk for programs."""
    end = found.end
    return {
        "references": [
            {"structure": r.structure.name, "level": r.level, "gpa": r.gpa, "hpa": r.hpa,
             "entry": r.entry, "verdict": r.verdict.name}
            for r in found.references
        ],
        "end": {name: getattr(end, name) for name in type(end).__dataclass_fields__},
    }  # fmt: skip
