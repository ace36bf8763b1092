"""Verbs that show: code, registers, memory, exits, the VMCS, walks."""

from hwmodel.arch.vmcs import Field
from vmm.debug import view
from vmm.debug.condition import Condition
from vmm.debug.shell import Answer, Shell, verb
from vmm.errors import UsageError
from vmm.symbols.guest import backtrace_lines
from vmm.virtual import VirtualMemory


@verb("regs", "regs", "show the registers")
def regs(shell: Shell, _words: list[str]) -> Answer:
    """Of the vCPU that runs."""
    values = shell.registers()
    cells = [f"{name:>6} {value:#018x}" for name, value in values.items()]
    return Answer(["  ".join(cells[n : n + 3]) for n in range(0, len(cells), 3)], values)


@verb("disas u", "disas [ADDRESS] [N]", "show code")
def disas(shell: Shell, words: list[str]) -> Answer:
    """With symbols."""
    vcpu = shell.session.vcpu
    at = shell.address(words.pop(0)) if words else view.code_address(vcpu)
    names = shell.names.settle(vcpu)
    lines = view.disassemble(vcpu, at, shell.number(words, 8))
    if not lines:
        raise UsageError(f"nothing is mapped at {at:#x}")
    text = [f"{line.address:#18x} {line.code.hex():<22} {line.text}" for line in lines]
    where = names.text(at)
    rows = [{"address": line.address, "code": line.code.hex(), "text": line.text} for line in lines]
    return Answer([f"{where}:", *text] if where else text, {"code": rows})


def _dump(at: int, data: bytes) -> list[str]:
    def show(part: bytes) -> str:
        return "".join(chr(c) if 32 <= c < 127 else "." for c in part)

    rows = [(at + n, data[n : n + 16]) for n in range(0, len(data), 16)]
    return [f"{place:#18x} {part.hex(' '):<47} {show(part)}" for place, part in rows]


@verb("x", "x ADDRESS [BYTES]", "show memory at a linear address")
def examine(shell: Shell, words: list[str]) -> Answer:
    """As the guest's page tables map it."""
    if not words:
        raise UsageError("x what? give an address")
    at = shell.address(words.pop(0))
    data = VirtualMemory(shell.session.vcpu).read(at, shell.number(words, 64))
    return Answer(_dump(at, data), {"address": at, "bytes": data.hex()})


@verb("xp", "xp ADDRESS [BYTES]", "show guest-physical memory")
def examine_physical(shell: Shell, words: list[str]) -> Answer:
    """RAM only: no device is read."""
    if not words:
        raise UsageError("xp what? give a guest-physical address")
    at = shell.address(words.pop(0))
    data = shell.vm.memory.read(at, shell.number(words, 64))
    return Answer(_dump(at, data), {"address": at, "bytes": data.hex()})


@verb("exits", "exits [N] [CONDITION]", "list the newest exits that meet a condition")
def exits(shell: Shell, words: list[str]) -> Answer:
    """Of the last thousand."""
    count = shell.number(words, 16) if words and words[0].isdigit() else 16
    found = shell.vm.exits
    if words:
        wanted = Condition.parse(" ".join(words))
        found = [vmexit for vmexit in found if wanted.holds_for(vmexit)]
    rows = [view.exit_row(vmexit) for vmexit in found[-count:]]
    return Answer([view.exit_text(row) for row in rows] or ["no exits"], {"exits": rows})


@verb("vmcs", "vmcs [diff] [FIELD...]", "show the VMCS, or what changed since the last exit")
def vmcs(shell: Shell, words: list[str]) -> Answer:
    """By field, by part of its name, or differences."""
    if words[:1] == ["diff"]:
        changes = view.since_last_exit(shell.session)
        lines = [f"{f.name:<34} {a:#x} -> {b:#x}" for f, (a, b) in changes.items()]
        data = {field.name: list(pair) for field, pair in changes.items()}
        return Answer(lines or ["nothing changed since the last exit"], {"changes": data})
    wanted = [word.upper() for word in words]
    values = {
        field: value
        for field, value in view.fields(shell.session.vcpu).items()
        if any(word in field.name for word in wanted) or (not wanted and value)
    }
    if not values:
        raise UsageError(f"vmcs {' '.join(words)!r}: no field has that in its name")
    return Answer(
        [f"{field.name:<34} {value:#x}" for field, value in values.items()],
        {field.name: value for field, value in values.items()},
    )


@verb("walk", "walk ADDRESS", "draw the page walk of a linear address")
def walk(shell: Shell, words: list[str]) -> Answer:
    """Guest tables down, the EPT across."""
    at = shell.address(words[0]) if words else view.code_address(shell.session.vcpu)
    found = view.walk(shell.session.vcpu, at)
    return Answer([f"walk of {at:#x}", *view.draw_walk(found)], view.walk_data(found))


@verb("backtrace bt", "backtrace", "show who called")
def backtrace(shell: Shell, _words: list[str]) -> Answer:
    """By the image's own unwind tables, or frame pointers."""
    frames = shell.names.backtrace(shell.session.vcpu)
    return Answer(backtrace_lines(frames), {"frames": [str(frame) for frame in frames]})


@verb("set", "set REGISTER VALUE", "write a register; the future is forgotten")
def set_verb(shell: Shell, words: list[str]) -> Answer:
    """The user's own doing."""
    if len(words) != 2:
        raise UsageError("set needs a register and a value")
    name, value, regs = words[0].lstrip("$").lower(), shell.address(words[1]), shell.vm.regs
    if name not in regs.as_dict() and name not in ("cr2", "cr3"):
        raise UsageError(f"{name!r} cannot be set; registers are {', '.join(regs.as_dict())}")
    setattr(shell.session.vcpu.regs, name, value)
    shell.session.changed()
    return Answer(data={name: value})


@verb("fields", "fields", "list the names of all VMCS fields")
def field_names(_shell: Shell, _words: list[str]) -> Answer:
    """For vmcs, changed, and conditions."""
    return Answer([field.name for field in Field], {"fields": [field.name for field in Field]})
