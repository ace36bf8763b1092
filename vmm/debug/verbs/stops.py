"""Verbs about breakpoints of every kind, and help."""

from hwmodel.cpu.stops import Watch
from vmm.debug import condition, operands
from vmm.debug.shell import VERBS, Answer, Shell, verb
from vmm.debug.stop import AnyStop, ExitStop
from vmm.errors import UsageError


def _made(stop: AnyStop) -> Answer:
    return Answer([f"{stop.number}: {stop}"], {"number": stop.number, "text": str(stop)})


def _place(shell: Shell, words: list[str], name: str) -> tuple[int, bool]:
    physical = "physical" in words
    words[:] = [word for word in words if word != "physical"]
    if not words:
        raise UsageError(f"{name} where? give an address, $register or symbol")
    return shell.address(words.pop(0)), physical


@verb("break b", "break ADDRESS [physical]", "stop before the instruction at an address")
def break_verb(shell: Shell, words: list[str]) -> Answer:
    """By linear or guest-physical address."""
    at, physical = _place(shell, words, "break")
    return _made(shell.session.break_at(at, physical=physical))


def _watch(shell: Shell, words: list[str], name: str, kinds: Watch) -> Answer:
    at, physical = _place(shell, words, name)
    size = shell.number(words, 8, "a size in bytes")
    return _made(shell.session.watch(at, size, kinds, physical=physical))


@verb("watch", "watch ADDRESS [SIZE] [physical]", "stop behind writes of memory")
def watch(shell: Shell, words: list[str]) -> Answer:
    """Writes."""
    return _watch(shell, words, "watch", Watch.WRITE)


@verb("rwatch", "rwatch ADDRESS [SIZE] [physical]", "stop behind reads of memory")
def rwatch(shell: Shell, words: list[str]) -> Answer:
    """Reads."""
    return _watch(shell, words, "rwatch", Watch.READ)


@verb("awatch", "awatch ADDRESS [SIZE] [physical]", "stop behind reads and writes of memory")
def awatch(shell: Shell, words: list[str]) -> Answer:
    """Both."""
    return _watch(shell, words, "awatch", Watch.ACCESS)


@verb("exit-break eb", "exit-break [after] CONDITION | list | del N", "stop at exits by condition")
def exit_break(shell: Shell, words: list[str]) -> Answer:
    """Exits as stops."""
    if words[:1] == ["add"]:
        words = words[1:]
    if words[:1] == ["list"]:
        return info(shell, [])
    if words[:1] == ["del"]:
        return delete(shell, words[1:])
    after = words[:1] == ["after"]
    text = " ".join(words[1:] if after else words)
    return _made(shell.session.break_on_exit(text, after=after))


@verb("delete del", "delete N", "remove a breakpoint of any kind")
def delete(shell: Shell, words: list[str]) -> Answer:
    """By number."""
    number = shell.number(words, 0, "a breakpoint's number")
    shell.session.remove(number)
    return Answer(data={"deleted": number})


@verb("info", "info", "list the breakpoints")
def info(shell: Shell, _words: list[str]) -> Answer:
    """All kinds."""
    lines, rows = [], []
    for stop in shell.session.stops:
        met = f" (met {stop.count} times)" if isinstance(stop, ExitStop) else ""
        lines.append(f"{stop.number}: {stop}{met}")
        rows.append({"number": stop.number, "text": str(stop)})
    return Answer(lines or ["no breakpoints"], {"breakpoints": rows})


@verb("help", "help [VERB|conditions]", "list the verbs, or tell of one")
def help_verb(_shell: Shell, words: list[str]) -> Answer:
    """What can be said."""
    if words[:1] == ["conditions"]:
        lines = (condition.__doc__ or "").splitlines()
        names = sorted(operands.operands())
        return Answer([*lines, "Names: " + " ".join(names)], {"names": names})
    entries = list(dict.fromkeys(VERBS.values()))
    if words:
        entry = VERBS.get(words[0])
        if entry is None:
            raise UsageError(f"there is no verb {words[0]!r}; help lists them")
        entries = [entry]
    lines = [f"{entry.usage:<42} {entry.help}" for entry in entries]
    return Answer(lines, {"verbs": [entry.usage for entry in entries]})
