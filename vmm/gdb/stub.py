"""One client's conversation: a packet in, an answer or an order out.

gdb manual, "Remote Protocol". An empty answer says that a packet is not known; E and two digits
that it failed. Nothing here touches the socket or lets the guest run.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from hwmodel.arch.vmcs import Field
from vmm.debug.session import Session
from vmm.debug.shell import Shell
from vmm.debug.stop import Stop, StopKind
from vmm.debug.target import Target
from vmm.errors import UsageError
from vmm.gdb import memory, queries, threads
from vmm.gdb.orders import Continue, Leave, Order, Step, StepRange
from vmm.gdb.points import TAGS, Points, Z, parse_z
from vmm.gdb.registers import ALL, IN_G, View
from vmm.vcpu import Vcpu

OK: Final = b"OK"
UNKNOWN: Final = b""
INVALID: Final = b"E16"  # EINVAL
Answer = bytes | Order
Command = Callable[["Stub", bytes], Answer]
Errand = Callable[[Session], Stop]


class Stub:
    """What a client has told us, and the VM that it looks at."""

    def __init__(self, target: Target, *, has_monitor: bool = True) -> None:
        """A new client: nothing is inserted, virtual CPU of the current turn is looked at."""
        self.target: Final[Target] = target
        self.points: Final = Points(target)
        self.has_monitor: Final = has_monitor
        self.offers: set[bytes] = set()
        """What the client said in qSupported that it understands, with a + behind it."""
        self.is_reliable = False
        """No acknowledgements any more."""
        self.general: int = target.session.vcpu.index
        self.steps_masked: int = queries.STEP_DEFAULT
        self.shell: Final = Shell(target.session)
        """The verbs that `monitor` shares with the terminal debugger."""
        self.errand: Errand | None = None
        """Where the next `continue` goes instead, as a monitor verb asked."""
        self.reports = True
        """Whether stops at exits and ends come with their call chain."""
        self.before: dict[int, dict[Field, int]] = {}
        """By virtual CPU: the VMCS at the stop before this one."""
        self._at_stop: dict[int, dict[Field, int]] = {}

    @property
    def vcpu(self) -> Vcpu:
        """The virtual CPU whose registers and memory are asked for."""
        return self.target.vcpus[self.general]

    @property
    def is_multiprocess(self) -> bool:
        """Whether threads are written with their process."""
        return b"multiprocess" in self.offers

    def thread(self, index: int) -> str:
        """Write a virtual CPU's thread identifier."""
        return threads.write_thread(index, multiprocess=self.is_multiprocess)

    def handle(self, payload: bytes) -> Answer:
        """Answer a packet; whatever is in it, nothing is raised."""
        name = queries.name_of(payload)
        command = queries.COMMANDS.get(name) or COMMANDS.get(payload[:1])
        if command is None:
            return UNKNOWN
        try:
            return command(self, payload[len(name) if name in queries.COMMANDS else 1 :])
        except UsageError as error:
            return b"E." + str(error).encode("ascii", "replace")
        except (ValueError, OverflowError):
            return INVALID

    # ---- why it stopped ----

    def console_text(self, stop: Stop) -> str:
        """Return what to print before a stop's answer: gdb itself knows nothing of exits."""
        if not self.reports or stop.kind not in (StopKind.EXIT, StopKind.ENDED):
            return ""
        return "".join(line + "\n" for line in self.target.report(stop))

    def note_stop(self, stop: Stop) -> None:
        """Look at the virtual CPU that stopped, and keep its VMCS to compare with."""
        self.general = stop.vcpu
        self.before = self._at_stop
        self._at_stop = {
            vcpu.index: {field: vcpu.vmcs[field] for field in Field} for vcpu in self.target.vcpus
        }

    def moves_on(self, order: Order) -> bool:
        """Whether an order goes forwards in time, as far as can be told before."""
        return self.errand is None and not (isinstance(order, Continue | Step) and order.back)

    def exit_reply(self, status: int) -> bytes:
        """Return the answer that says that there is nothing to debug any more."""
        process = f";process:{threads.PROCESS:x}" if self.is_multiprocess else ""
        return f"W{status & 0xFF:02x}{process}".encode()

    def stop_reply(self, stop: Stop) -> bytes:
        """Return the answer to a resumption: why it ended."""
        if stop.kind is StopKind.ENDED:
            return self._reply(stop, "replaylog:end;")
        if stop.kind is StopKind.BEGIN:
            return self._reply(stop, "replaylog:begin;")
        if stop.kind is StopKind.PAUSED:
            return self._reply(stop, "", signal=2)
        return self._reply(stop, self._reason(stop))

    def _reason(self, stop: Stop) -> str:
        if stop.kind is StopKind.EXIT and stop.vmexit is not None:
            e = stop.vmexit
            return (
                f"vmexit:{e.reason:x};exit_reason:{e.name};exit_qual:{e.qualification:x};"
                f"exit_gpa:{e.guest_physical:x};exit_number:{e.sequence:x};"
            )
        point = self.points.by_number(stop.number)
        if point is None:
            return ""
        tag = TAGS[point.kind]
        if point.kind in (Z.SOFTWARE, Z.HARDWARE):
            return f"{tag}:;" if tag.encode() in self.offers else ""
        return f"{tag}:{stop.address or point.address:x};"

    def _reply(self, stop: Stop, reason: str, signal: int = 5) -> bytes:
        view = View(self.target.vcpus[stop.vcpu], None)
        shown = "".join(f"{n:02x}:{value_of(view, n).hex()};" for n in (6, 7, 16))
        core = f"core:{0:x};"
        return f"T{signal:02x}{shown}thread:{self.thread(stop.vcpu)};{core}{reason}".encode()


def value_of(view: View, number: int) -> bytes:
    """Return a register's bytes."""
    register = ALL[number]
    value = register.read(view) & (1 << register.bits) - 1
    return value.to_bytes(register.size, "little")


def _view(stub: Stub) -> View:
    return View(stub.vcpu, stub.target.last_exit(stub.vcpu))


def _why(stub: Stub, _words: bytes) -> Answer:
    last = stub.target.session.last
    stub.note_stop(last)
    return stub.stop_reply(
        replace(last, kind=StopKind.GOAL) if last.kind is StopKind.PAUSED else last
    )


def _read_registers(stub: Stub, _words: bytes) -> Answer:
    view = _view(stub)
    return b"".join(value_of(view, number) for number in range(len(IN_G))).hex().encode()


def _write_registers(stub: Stub, words: bytes) -> Answer:
    data = bytes.fromhex(words.decode("ascii"))
    if len(data) != sum(register.size for register in IN_G):
        return INVALID
    view, at, wanted = _view(stub), 0, []
    for number, register in enumerate(IN_G):
        part = data[at : at + register.size]
        at += register.size
        if register.write is not None and value_of(view, number) != part:
            wanted.append((number, int.from_bytes(part, "little")))
    _set(stub, wanted)
    return OK


def _read_register(stub: Stub, words: bytes) -> Answer:
    number = int(words, 16)
    if not 0 <= number < len(ALL):
        return INVALID
    return value_of(_view(stub), number).hex().encode()


def _write_register(stub: Stub, words: bytes) -> Answer:
    index, _, text = words.partition(b"=")
    number, data = int(index, 16), bytes.fromhex(text.decode("ascii"))
    if not 0 <= number < len(ALL) or len(data) != ALL[number].size:
        return INVALID
    if ALL[number].write is None:
        raise UsageError(f"{ALL[number].name} is read-only")
    _set(stub, [(number, int.from_bytes(data, "little"))])
    return OK


def _set(stub: Stub, values: list[tuple[int, int]]) -> None:
    view = _view(stub)

    def write() -> None:
        for number, value in values:
            setter = ALL[number].write
            assert setter is not None
            setter(view, value)

    if values:
        stub.target.set_state(stub.vcpu, write)


def _select(stub: Stub, words: bytes) -> Answer:
    """H: `g` for everything that reads, `c` for what `c` and `s` without a thread mean."""
    number = threads.read_thread(words[1:], len(stub.target.vcpus))
    if number > 0:
        stub.general = number - 1
    elif number == threads.ANY and words[:1] == b"g":
        stub.general = stub.target.session.vcpu.index
    return OK


def _is_alive(stub: Stub, words: bytes) -> Answer:
    return OK if threads.read_thread(words, len(stub.target.vcpus)) > 0 else INVALID


def _insert(stub: Stub, words: bytes) -> Answer:
    stub.points.insert(*parse_z(words))
    return OK


def _remove(stub: Stub, words: bytes) -> Answer:
    stub.points.remove(parse_z(words)[0])
    return OK


def _resume_at(stub: Stub, words: bytes, order: Order) -> Answer:
    """`c ADDR` and `s ADDR`: go on elsewhere."""
    if words:
        _set(stub, [(16, int(words, 16))])
    return order


def _continue(stub: Stub, words: bytes) -> Answer:
    return _resume_at(stub, words, Continue())


def _step(stub: Stub, words: bytes) -> Answer:
    return _resume_at(stub, words, Step(stub.general))


def _behind_signal(words: bytes) -> bytes:
    """A machine takes no signals: `C 05;ADDR` is `c ADDR`."""
    return words.partition(b";")[2]


def _back(stub: Stub, words: bytes) -> Answer:
    if words == b"c":
        return Continue(back=True)
    return Step(stub.general, back=True) if words == b"s" else UNKNOWN


def _v_cont(stub: Stub, words: bytes) -> Answer:
    """`;ACTION[:THREAD]...`: the others always run, as their schedule says.

    That one virtual CPU is to step is what matters: the first such action is carried out.
    """
    for action in words.strip(b";").split(b";"):
        what, _, thread = action.partition(b":")
        number = threads.read_thread(thread, len(stub.target.vcpus)) if thread else threads.ALL
        index = number - 1 if number > 0 else stub.general
        if what[:1] in (b"s", b"S"):
            return Step(index)
        if what[:1] == b"r":
            start, end = (int(word, 16) for word in what[1:].split(b","))
            return StepRange(index, start, end)
        if what[:1] not in (b"c", b"C", b"t"):
            return INVALID
    return Continue()


def _detach(_stub: Stub, _words: bytes) -> Answer:
    return Leave()


def _kill(_stub: Stub, _words: bytes) -> Answer:
    return Leave(kills=True)


COMMANDS: Final[dict[bytes, Command]] = {
    b"?": _why, b"g": _read_registers, b"G": _write_registers, b"p": _read_register,
    b"P": _write_register, b"H": _select, b"T": _is_alive, b"Z": _insert, b"z": _remove,
    b"c": _continue, b"s": _step, b"b": _back, b"D": _detach, b"k": _kill,
    b"C": lambda stub, words: _continue(stub, _behind_signal(words)),
    b"S": lambda stub, words: _step(stub, _behind_signal(words)),
    b"m": memory.read_hex, b"M": memory.write_hex, b"x": memory.read_binary,
    b"X": memory.write_binary,
}  # fmt: skip
queries.COMMANDS |= {b"vCont": _v_cont, b"vKill": _kill}
