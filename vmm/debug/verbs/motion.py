"""Verbs that move: forwards, backwards, anywhere."""

from hwmodel.arch.vmcs import Field
from vmm.debug.search import Search
from vmm.debug.shell import Answer, Shell, verb
from vmm.debug.stop import StopKind
from vmm.errors import UsageError


def _vcpu(shell: Shell, words: list[str]) -> int | None:
    """Read `vcpu N` at the end."""
    if "vcpu" not in words:
        return None
    at = words.index("vcpu")
    index = shell.number(words[at + 1 : at + 2], what="a virtual CPU")
    del words[at:]
    if index >= len(shell.vm.vcpus):
        raise UsageError(f"there is no vCPU {index}; the last is {len(shell.vm.vcpus) - 1}")
    return index


@verb("step s si", "step [N] [vcpu K]", "make N steps: instructions, or events delivered")
def step(shell: Shell, words: list[str]) -> Answer:
    """Forwards."""
    vcpu = _vcpu(shell, words)
    return shell.report(shell.session.step(shell.number(words), vcpu))


@verb("rstep rs rsi", "rstep [N] [vcpu K]", "take N steps back")
def rstep(shell: Shell, words: list[str]) -> Answer:
    """Backwards."""
    vcpu = _vcpu(shell, words)
    return shell.report(shell.session.reverse_step(shell.number(words), vcpu))


@verb("continue c", "continue", "run to the next breakpoint or the end")
def resume(shell: Shell, _words: list[str]) -> Answer:
    """Forwards."""
    return shell.report(shell.session.resume())


@verb("rcontinue rc", "rcontinue", "go back to the last breakpoint before now")
def rcontinue(shell: Shell, _words: list[str]) -> Answer:
    """Backwards."""
    return shell.report(shell.session.reverse_resume())


@verb("exit", "exit next|prev [N]", "go to the N-th next or previous exit, before its handler")
def exit_verb(shell: Shell, words: list[str]) -> Answer:
    """Exit by exit."""
    way = words.pop(0) if words else "next"
    if way not in ("next", "prev"):
        raise UsageError(f"exit {way!r} is neither next nor prev")
    count = shell.number(words)
    session = shell.session
    return shell.report(session.next_exit(count) if way == "next" else session.previous_exit(count))


@verb("finish", "finish", "run the handler of the open exit; stop behind it")
def finish(shell: Shell, _words: list[str]) -> Answer:
    """To behind the handler."""
    if shell.session.open_exit is None:
        raise UsageError("no exit is open here; exit next goes to one")
    return shell.report(shell.session.finish_exit())


@verb("goto", "goto cycle|step|instruction|exit N", "go to a point of the run, past or future")
def goto(shell: Shell, words: list[str]) -> Answer:
    """Anywhere."""
    session = shell.session
    ways = {
        "cycle": session.goto_cycle, "step": session.goto_step, "exit": session.goto_exit,
        "instruction": session.goto_instruction,
    }  # fmt: skip
    kind = words.pop(0) if words else ""
    if kind not in ways or not words:
        raise UsageError(f"goto {kind!r} is no point of a run; write goto cycle|step|exit N")
    return shell.report(ways[kind](shell.number(words)))


@verb("lastwrite", "lastwrite ADDRESS [SIZE] [linear]", "go back behind the last write of memory")
def last_write(shell: Shell, words: list[str]) -> Answer:
    """Who wrote this?"""
    if not words:
        raise UsageError("lastwrite of what? give a guest-physical address")
    physical = "linear" not in words
    words = [word for word in words if word != "linear"]
    at = shell.address(words.pop(0))
    return shell.report(shell.session.last_write(at, shell.number(words, 8), physical=physical))


@verb("changed", "changed FIELD", "go back to the exit that last changed a VMCS field")
def changed(shell: Shell, words: list[str]) -> Answer:
    """Which exit, or its handler, gave the field the value that it has?"""
    name = words[0].upper() if words else ""
    if name not in Field.__members__:
        raise UsageError(f"changed {name!r}: there is no such VMCS field; vmcs lists them")
    session, field = shell.session, Field[name]
    moment = Search(session).last_change(lambda vcpu: vcpu.vmcs[field])
    if moment is None:
        session.goto(session.checkpoints.first.moment)
        return Answer([f"{name} was {session.vcpu.vmcs[field]:#x} from the beginning"],
                      {"stop": str(StopKind.BEGIN), "field": name})  # fmt: skip
    answer = shell.report(session.goto(moment))
    value = session.vcpu.vmcs[field]
    return Answer([f"{name} has been {value:#x} since here", *answer.lines],
                  answer.data | {"field": name, "value": value})  # fmt: skip


@verb("when", "when", "say where the run stands")
def when(shell: Shell, _words: list[str]) -> Answer:
    """Now."""
    session = shell.session
    answer = shell.report(session.last)
    behind = [f"  in the past: the run has been to {session.frontier}"]
    lines = [*answer.lines, f"  {session.instructions:,} instructions retired"]
    lines += behind if session.is_in_the_past else []
    return Answer(lines, answer.data | {"instructions": session.instructions})


@verb("quit q", "quit", "leave")
def leave(_shell: Shell, _words: list[str]) -> Answer:
    """The end."""
    return Answer(ends=True)
