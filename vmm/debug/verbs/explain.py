"""`explain`: why the next entry would fail, a walk faults, nothing goes on, the last exit was made.

Whatever has to be run for an answer is taken back: the session stands where it stood.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from hwmodel.cpu.stops import Mode
from hwmodel.mem.reference import Access
from vmm.debug import checkpoints, view
from vmm.debug.shell import Answer, Shell, verb
from vmm.errors import UsageError

AHEAD: Final = 10_000_000  # cycles
_USAGE: Final = "explain entry | exit | hang [CYCLES] | walk [gpa:]ADDRESS [read|write|fetch]"


@verb("explain", _USAGE, "say why: each check, reference, reason, who waits for what")
def explain(shell: Shell, words: list[str]) -> Answer:
    """As `ring1 explain`."""
    ways = {"entry": _entry, "walk": _walk, "hang": _hang, "exit": _exit, "last": _exit}
    way = ways.get(words[0] if words else "")
    if way is None:
        raise UsageError(f"explain {' '.join(words)!r} is not known; write {_USAGE}")
    return way(shell, words[1:])


def _entry(shell: Shell, _words: list[str]) -> Answer:
    from vmm.observe.entry import explain_entry, findings

    vcpu = shell.session.vcpu
    passes = all(finding.passes for finding in findings(vcpu))
    return Answer([*explain_entry(vcpu)], {"passes": passes})


def _walk(shell: Shell, words: list[str]) -> Answer:
    from vmm.observe.plain import plain
    from vmm.observe.walk import walk_lines, walk_story

    names = {access.name.lower(): access for access in Access}
    access = names.get(words[1].lower() if len(words) > 1 else "read")
    if access is None:
        raise UsageError(f"explain walk for {words[1]!r}: choose one of {', '.join(names)}")
    vcpu, text = shell.session.vcpu, words[0] if words else ""
    physical = text.lower().startswith("gpa:")
    text = text[4:] if physical else text
    at = shell.address(text) if text else view.code_address(vcpu)
    story = walk_story(vcpu, at, access, physical=physical)
    return Answer([*walk_lines(story)], plain(story))


def _hang(shell: Shell, words: list[str]) -> Answer:
    from vmm.observe.hang import hang_lines, hang_story
    from vmm.observe.plain import plain

    vm, ahead = shell.vm, shell.number(words, AHEAD, "a number of cycles")
    names = {vcpu.index: shell.names.settle(vcpu).text(vcpu.regs.rip) for vcpu in vm.vcpus}
    with _taken_back(shell):
        if shell.session.open_exit is not None:
            shell.session.finish_exit()
        shell.session.stops.arm(shell.session.driver, Mode.OFF)
        story = hang_story(vm, ahead=0 if vm.is_stopped() else ahead)
    return Answer([*hang_lines(story, names)], plain(story) | {"stuck": story.is_stuck})


def _exit(shell: Shell, _words: list[str]) -> Answer:
    from vmm.observe.exit import effects_of, exit_lines, exit_story, with_price
    from vmm.observe.plain import plain

    session, number = shell.session, shell.session.now.exits
    if number <= session.checkpoints.first.moment.exits:
        raise UsageError("there was no exit yet; exit next goes to one")
    recorder = shell.vm.pcpu.recorder()
    with _taken_back(shell):
        session.goto_exit(number)
        session.reverse_step()
        recorder.add_up()  # what the exit itself costs is noted as it is made
        session.goto_exit(number)
        vmexit = session.open_exit
        if vmexit is None:
            raise UsageError("the last exit was before the beginning of this history")
        names = shell.names.settle(session.vcpu)
        story = exit_story(session.vcpu, vmexit, names.text(session.vcpu.regs.rip))
        effects = effects_of(shell.vm, session.vcpu, session.finish_exit)
        effects = with_price(effects, recorder.counters())
    return Answer([*exit_lines(story, effects)], {"exit": plain(story), "effects": plain(effects)})


@contextmanager
def _taken_back(shell: Shell) -> Iterator[None]:
    """Go back to the present at the end, as if nothing had been run."""
    session = shell.session
    here, last, frontier = checkpoints.take(session.driver, None), session.last, session.frontier
    try:
        yield
    finally:
        shell.vm.pcpu.recorder().stop()
        checkpoints.put(session.driver, here)
        session.last, session.frontier = last, frontier
