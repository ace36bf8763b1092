"""`monitor VERB ...`: what gdb has no words for. `monitor help` lists the verbs.

A verb that goes somewhere else in time does not go at once, since gdb would not notice: the next
`continue` goes there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from hwmodel.arch.vmcs import Field
from hwmodel.mem.reference import Access, Exited, Raised, Translated
from vmm.debug.shell import load_verbs
from vmm.debug.target import exit_text
from vmm.errors import UsageError
from vmm.sched.build import turns_of

if TYPE_CHECKING:
    from vmm.debug.session import Session
    from vmm.debug.stop import Stop
    from vmm.gdb.stub import Errand, Stub

Lines = Iterator[str]
Verb = Callable[["Stub", list[str]], Lines]


@dataclass(frozen=True, slots=True)
class Entry:
    """A verb: how it is used, what it does."""

    usage: str
    what: str
    run: Verb


def run_monitor(stub: "Stub", line: str) -> str:
    """Carry out a line; return what to print. Errors are text too."""
    words = line.split()
    name = words[0] if words else "help"
    entry = VERBS.get(name)
    if entry is None:
        near = get_close_matches(name, VERBS, 1)
        hint = f"; did you mean {near[0]}?" if near else "; monitor help lists the verbs"
        return f"monitor {name} is not known{hint}\n"
    try:
        return "".join(f"{text}\n" for text in entry.run(stub, words[1:]))
    except (UsageError, ValueError, IndexError) as error:
        said = str(error) if isinstance(error, UsageError) else f"usage: monitor {entry.usage}"
        return f"{said}\n"


def _number(text: str) -> int:
    return int(text, 0)


def _address(stub: "Stub", text: str) -> int:
    found = stub.target.names.settle(stub.vcpu).find(text)
    if found is None:
        raise UsageError(f"{text!r} is neither a number nor a symbol of the image")
    return found


def _later(stub: "Stub", errand: "Errand", where: str) -> Lines:
    stub.errand = errand
    yield f"continue goes to {where}"


def _help(_stub: "Stub", words: list[str]) -> Lines:
    shown = {name: VERBS[name] for name in words if name in VERBS} or VERBS
    width = max(len(entry.usage) for entry in shown.values())
    for entry in shown.values():
        yield f"{entry.usage:{width}}  {entry.what}"


def _exit_break(stub: "Stub", words: list[str]) -> Lines:
    session = stub.target.session
    match words:
        case ["add", "after", *rest] if rest:
            stop = session.break_on_exit(" ".join(rest), after=True)
            yield f"{stop.number}: {stop}"
        case ["add", *rest] if rest:
            stop = session.break_on_exit(" ".join(rest))
            yield f"{stop.number}: {stop}"
        case ["del", number]:
            session.remove(_number(number))
            yield f"exit breakpoint {_number(number)} is gone"
        case ["list"] | []:
            for stop in session.stops:
                if str(stop).startswith("exit-break"):
                    yield f"{stop.number}: {stop}"
        case _:
            raise ValueError(words)


def _exit(stub: "Stub", words: list[str]) -> Lines:
    count = _number(words[1]) if len(words) > 1 else 1
    match words:
        case ["next", *_]:
            yield from _later(stub, lambda s: s.next_exit(count), f"exit + {count}")
        case ["prev", *_]:
            yield from _later(stub, lambda s: s.previous_exit(count), f"exit - {count}")
        case ["finish"]:
            yield from _later(stub, lambda s: s.finish_exit(), "behind the exit's handler")
        case []:
            vmexit = stub.target.last_exit(stub.vcpu)
            yield exit_text(vmexit) if vmexit else "there was no exit yet"
        case _:
            raise ValueError(words)


def _goto(stub: "Stub", words: list[str]) -> Lines:
    kind, number = words[0], _number(words[1])
    errands: dict[str, Errand] = {
        "cycle": lambda s: s.goto_cycle(number), "exit": lambda s: s.goto_exit(number),
        "step": lambda s: s.goto_step(number), "instruction": lambda s: s.goto_instruction(number),
    }  # fmt: skip
    if kind not in errands:
        raise ValueError(kind)
    yield from _later(stub, errands[kind], f"{kind} {number:,}")


def _last_write(stub: "Stub", words: list[str]) -> Lines:
    address, size = _address(stub, words[0]), _number(words[1]) if len(words) > 1 else 8
    physical = stub.target.physical
    yield from _later(
        stub, lambda s: s.last_write(address, size, physical=physical),
        f"behind the last write of {size} bytes at {address:#x}",
    )  # fmt: skip


def _history(stub: "Stub", words: list[str]) -> Lines:
    if words != ["fork"]:
        raise ValueError(words)
    stub.target.session.changed()
    yield f"the present is {stub.target.session.now}; what came after is forgotten"


def _checkpoint(stub: "Stub", words: list[str]) -> Lines:
    checkpoints = stub.target.session.checkpoints
    if not words:
        checkpoints.take()
    for moment in checkpoints.moments:
        yield str(moment)
    size, most = checkpoints.size >> 10, checkpoints.limit >> 10
    yield f"{len(checkpoints)} checkpoints, {size:,} KiB of at most {most:,}"


def _when(stub: "Stub", _words: list[str]) -> Lines:
    session = stub.target.session
    yield str(session.now) + (", in the past" if session.is_in_the_past else "")


def _time(stub: "Stub", _words: list[str]) -> Lines:
    vm = stub.target.vm
    yield f"{vm.clock.now:,} cycles, {vm.clock.now * 10**9 // vm.clock.frequency:,} ns"
    yield f"{vm.pcpu.instructions:,} instructions, TSC {stub.vcpu.tsc():#x}"


def _freq(stub: "Stub", _words: list[str]) -> Lines:
    vm = stub.target.vm
    yield f"clock {vm.clock.frequency:,} Hz, TSC {vm.model.tsc_hz:,} Hz, {vm.config.cpu_model}"


def _vmcs(stub: "Stub", words: list[str]) -> Lines:
    differs = words[:1] == ["diff"]
    wanted = [word.upper() for word in (words[1:] if differs else words)]
    vmcs, before = stub.vcpu.vmcs, stub.before.get(stub.general, {})
    known = [f for f in Field if not wanted or any(word in f.name for word in wanted)]
    if not known:
        raise UsageError(f"no VMCS field's name contains {wanted[0]}")
    for field in known:
        value, old = vmcs[field], before.get(field)
        if not differs:
            yield f"{field.name} {value:#x}"
        elif old is not None and old != value:
            yield f"{field.name} {old:#x} -> {value:#x}"


def _walk(stub: "Stub", words: list[str]) -> Lines:
    vcpu, linear = stub.vcpu, _address(stub, words[0])
    walk = vcpu.pcpu.explain_walk(vcpu.vmcs, linear, Access.READ)
    for one in walk.references:
        yield (
            f"{one.structure.name.lower():5} {one.level:2}  gpa {one.gpa:#014x}  "
            f"hpa {one.hpa:#014x}  entry {one.entry:#018x}  {one.verdict.name.lower()}"
        )
    match walk.end:
        case Translated():
            yield f"{linear:#x} is gpa {walk.end.gpa:#x}, hpa {walk.end.hpa:#x}"
        case Raised():
            yield f"{linear:#x}: exception {walk.end.vector}, error code {walk.end.error:#x}"
        case Exited():
            yield f"{linear:#x}: exit {walk.end.reason}, gpa {walk.end.gpa:#x}"


def _tlb(stub: "Stub", _words: list[str]) -> Lines:
    for name, value in stub.target.vm.pcpu.mmu_counters().items():
        yield f"{name} {value}"


def _shared(name: str) -> Verb:
    """Return a verb of the terminal debugger that shows something."""

    def run(stub: "Stub", words: list[str]) -> Lines:
        yield from load_verbs()[name].function(stub.shell, words).lines

    return run


def _shared_motion(name: str) -> Verb:
    """Return one that goes somewhere."""

    def run(stub: "Stub", words: list[str]) -> Lines:
        shell, line = stub.shell, [*words]

        def go(session: "Session") -> "Stop":
            load_verbs()[name].function(shell, line)
            return session.last

        yield from _later(stub, go, " ".join(["where", name, *words, "leads"]))

    return run


def _changed(stub: "Stub", words: list[str]) -> Lines:
    if len(words) != 1 or words[0].upper() not in Field.__members__:
        raise UsageError(f"changed {' '.join(words)!r}: there is no such VMCS field; see fields")
    yield from _shared_motion("changed")(stub, words)


def _hypercalls(stub: "Stub", _words: list[str]) -> Lines:
    vm = stub.target.vm
    yield f"{vm.pcpu.exits_by_name().get('VMCALL', 0):,} hypercalls; the last ones:"
    for vmexit in vm.pcpu.last_exits():
        if vmexit.name == "VMCALL":
            yield f"{exit_text(vmexit)} at {stub.target.names.image.text(vmexit.rip)}"


def _sched(stub: "Stub", _words: list[str]) -> Lines:
    scheduler, now = turns_of(stub.target.vm.scheduler), stub.target.vm.clock.now
    for vcpu in stub.target.vcpus:
        ends = f", its turn ends in {scheduler.turn_ends - now:,} cycles"
        mark = ends if vcpu is scheduler.current and scheduler.turn_ends > now else ""
        yield f"vCPU {vcpu.index}: {stub.target.mode_text(vcpu)}{mark}"


def _stats(stub: "Stub", _words: list[str]) -> Lines:
    counts = stub.target.vm.pcpu.exits_by_name()
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        yield f"{count:>14,}  {name}"


def _phys(stub: "Stub", words: list[str]) -> Lines:
    if words and words[0] not in ("on", "off"):
        raise ValueError(words)
    if words:
        stub.target.physical = words[0] == "on"
    yield f"addresses are {'guest-physical' if stub.target.physical else 'linear'}"


def _mmio(stub: "Stub", words: list[str]) -> Lines:
    """A device may change by being read: that is why gdb's own reads never reach one."""
    if words[0] != "read":
        raise ValueError(words)
    address, size = _number(words[1]), _number(words[2]) if len(words) > 2 else 4
    if size not in (1, 2, 4, 8):
        raise UsageError(f"a device is not read by {size} bytes; give 1, 2, 4 or 8")
    stub.target.refuse_in_the_past()
    value = stub.vcpu.board.read_memory(stub.general, address, size)
    stub.target.session.changed()
    yield f"{address:#x}: {value:#0{2 * size + 2}x}"


def _backtrace(stub: "Stub", _words: list[str]) -> Lines:
    yield from stub.target.backtrace(stub.vcpu)


def _where(stub: "Stub", words: list[str]) -> Lines:
    names = stub.target.names
    if not words:
        yield names.where(stub.vcpu)
        return
    address = _address(stub, words[0])
    line = names.image.line_at(address)
    yield names.image.text(address) + (f" at {line}" if line else "")


def _reports(stub: "Stub", words: list[str]) -> Lines:
    if words[0] not in ("on", "off"):
        raise ValueError(words)
    stub.reports = words[0] == "on"
    yield f"stops at exits are reported{'' if stub.reports else ' without a call chain'}"


SHARED: Final = {
    name: (load_verbs()[name].usage, load_verbs()[name].help)
    for name in (
        "explain", "exits", "regs", "disas", "x", "xp", "fields", "ledger", "console",
        "checkpoints", "digest",
    )
}  # fmt: skip
_TABLE: Final = (
    Entry("help [VERB]", "this list", _help),
    Entry("exit-break add [after] CONDITION | del N | list", "stop at VM-exits", _exit_break),
    Entry("exit [next [N] | prev [N] | finish]", "the last exit; go to another", _exit),
    Entry("goto cycle|exit|step|instruction N", "go anywhere in the run", _goto),
    Entry("last-write ADDRESS [SIZE]", "go back behind the last write", _last_write),
    Entry("when", "the present moment", _when),
    Entry("history fork", "make the present the end of the run: it can be changed", _history),
    Entry("checkpoint [list]", "take a checkpoint; list them", _checkpoint),
    Entry("vmcs [diff] [NAME...]", "the VMCS; what changed since the last stop", _vmcs),
    Entry("walk ADDRESS", "each reference of the page walk", _walk),
    Entry("tlb", "what translation counted", _tlb),
    Entry("changed FIELD", "go back to the exit that last changed a VMCS field", _changed),
    *(Entry(SHARED[name][0], SHARED[name][1], _shared(name)) for name in SHARED),
    Entry("hypercalls", "how many there were, and the last ones", _hypercalls),
    Entry("sched", "virtual CPUs and whose turn it is", _sched),
    Entry("stats", "exits by reason", _stats),
    Entry("time", "cycles, nanoseconds, instructions", _time),
    Entry("freq", "the clock's frequency", _freq),
    Entry("phys [on|off]", "whether addresses are guest-physical", _phys),
    Entry("mmio read ADDRESS [SIZE]", "read a device, with its side effects", _mmio),
    Entry("backtrace", "the call chain by the image's own names", _backtrace),
    Entry("where [ADDRESS]", "name and source line of an address", _where),
    Entry("reports on|off", "call chains at stops for exits", _reports),
)  # fmt: skip
VERBS: Final = {entry.usage.split()[0]: entry for entry in _TABLE}
