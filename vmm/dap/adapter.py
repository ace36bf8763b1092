"""`ring1 debug --dap`: one editor's session over a pair of descriptors.

Specification: "Debug Adapter Protocol". Virtual CPUs are threads, exit reasons exception filters,
stepping back is stepping back in time; `evaluate` takes the verbs of `ring1 debug`.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from vmm.dap.channel import Channel, ChannelError, Message
from vmm.dap.inspection import Inspection
from vmm.dap.motion import Motion
from vmm.dap.points import Points, exception_filters
from vmm.debug.session import Session
from vmm.debug.shell import Shell
from vmm.debug.stop import Stop, StopKind
from vmm.debug.target import Target
from vmm.errors import UsageError
from vmm.vm import VM

POLL_CYCLES: Final = 1 << 22
_LINE_MAX: Final = 4096
_CAPABILITIES: Final = (
    "ConfigurationDoneRequest", "FunctionBreakpoints", "InstructionBreakpoints", "DataBreakpoints",
    "StepBack", "SteppingGranularity", "ReadMemoryRequest", "WriteMemoryRequest",
    "DisassembleRequest", "ExceptionInfoRequest", "ExceptionFilterOptions", "SetVariable",
    "TerminateRequest", "EvaluateForHovers",
)  # fmt: skip
Arguments = dict[str, Any]
Make = Callable[[Arguments, Callable[[bytes], None]], VM]
"""Makes the VM from the arguments of `launch`; the function takes serial output."""
_REASONS: Final = {
    StopKind.GOAL: "step", StopKind.BREAKPOINT: "breakpoint", StopKind.EXIT: "exception",
    StopKind.WATCHPOINT: "data breakpoint", StopKind.PAUSED: "pause", StopKind.BEGIN: "entry",
    StopKind.ENDED: "end of the run",
}  # fmt: skip


class Adapter(Inspection):
    """Answers one client's requests until it goes."""

    def __init__(self, channel: Channel, make: Make, *, limit: int | None = None) -> None:
        """`make` is called at the `launch` request; checkpoints take at most `limit` bytes."""
        self._limit: Final = limit
        self._channel: Final = channel
        self._make: Final = make
        self._sequence = 0
        self._said = bytearray()
        self._waiting: Final[deque[Message]] = deque()
        self._vm: VM | None = None
        self._next_look = 0
        self._after: Callable[[], None] | None = None
        """What is done when the response is on its way: events come behind it."""
        self._leaves = False

    def run(self) -> int:
        """Serve; return the status of the process."""
        try:
            while self._channel.is_open and not self._leaves:
                self._waiting.extend(self._channel.receive(None))
                while self._waiting and not self._leaves:
                    self._take(self._waiting.popleft())
        except ChannelError as error:
            raise UsageError(f"--dap: {error}; an editor is to speak here, not a person") from None
        finally:
            if self._vm is not None:
                self._vm.close()
        return 0

    # ---- messages ----

    def _take(self, message: Message) -> None:
        if message.get("type") != "request":
            return
        command, arguments = str(message.get("command")), message.get("arguments") or {}
        answer: Message = {"type": "response", "request_seq": message.get("seq", 0)}
        answer |= {"command": command, "success": True}
        try:
            handler = getattr(self, f"on_{command}", None)
            if handler is None:
                raise UsageError(f"{command} is not known here")
            if self._vm is None and command not in ("initialize", "launch", "attach", "disconnect"):
                raise UsageError(f"{command} comes after launch")
            body = handler(arguments)
            answer |= {"body": body} if body is not None else {}
        except UsageError as error:
            answer |= {"success": False, "message": str(error)}
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            text = f"{command}: the arguments make no sense ({type(error).__name__}: {error})"
            answer |= {"success": False, "message": text}
        self._send(answer)
        after, self._after = self._after, None
        if after is not None:
            after()

    def _send(self, message: Message) -> None:
        self._sequence += 1
        self._channel.send({"seq": self._sequence} | message)

    def _event(self, name: str, body: Message | None = None) -> None:
        self._send({"type": "event", "event": name, "body": body or {}})

    def _output(self, text: str, category: str = "console") -> None:
        self._event("output", {"category": category, "output": text})

    def _serial(self, data: bytes) -> None:
        """Guests write a byte at a time, people read lines."""
        self._said += data
        if self._said.endswith(b"\n") or len(self._said) > _LINE_MAX:
            self._flush()

    def _flush(self) -> None:
        if self._said:
            self._output(self._said.decode("utf-8", "replace"), "stdout")
            self._said.clear()

    # ---- beginning and end ----

    def on_initialize(self, _arguments: Arguments) -> Message:
        """Say what is offered."""
        offered: Message = {f"supports{name}": True for name in _CAPABILITIES}
        return offered | {"exceptionBreakpointFilters": exception_filters()}

    def on_launch(self, arguments: Arguments) -> None:
        """Make the VM; nothing runs before configurationDone."""
        if self._vm is not None:
            raise UsageError("something has been launched already")
        self._vm = self._make(arguments, self._serial)
        self._session = Session(self._vm, limit=self._limit)
        self._target = Target(self._session)
        self._points = Points(self._target)
        self._motion = Motion(self._target, self._glance)
        self._shell = Shell(self._session)
        self._stops_at_entry = bool(arguments.get("stopOnEntry"))
        driver = self._session.driver
        self._inner = driver.look, driver.looked
        driver.look, driver.looked = self._look, self._looked
        self._after = lambda: self._event("initialized")

    on_attach = on_launch

    def on_configurationDone(self, _arguments: Arguments) -> None:  # noqa: N802  the protocol's
        """Begin to run."""
        if self._stops_at_entry:
            self._after = lambda: self._stopped(self._session.last, "entry")
        else:
            self._moves(self._session.resume)

    def on_disconnect(self, _arguments: Arguments) -> None:
        """The client goes, and the run ends with it."""
        self._leaves = True

    def on_terminate(self, _arguments: Arguments) -> None:
        """End the run."""
        self._after = lambda: self._event("terminated")
        self._leaves = False

    # ---- while it runs ----

    def _look(self) -> int:
        return min(self._inner[0](), self._next_look)

    def _looked(self) -> None:
        self._next_look = self._session.vm.clock.now + POLL_CYCLES
        self._inner[1]()
        if self._glance():
            self._session.pause()

    def _glance(self) -> bool:
        """Take in what the client sent; whether the guest is to stop for it.

        Every request but `pause` waits; a `pause` is answered in its turn, when it has stopped.
        """
        self._waiting.extend(self._channel.receive(0))
        stopping = ("pause", "disconnect", "terminate")
        wanted = any(message.get("command") in stopping for message in self._waiting)
        return wanted or not self._channel.is_open

    def _moves(self, move: Callable[[], Stop]) -> None:
        """Have the guest move behind the response, and tell where it stopped."""

        def after() -> None:
            self._next_look = self._session.vm.clock.now + POLL_CYCLES
            self._stopped(move())

        self._after = after

    def _stopped(self, stop: Stop, reason: str = "") -> None:
        self._flush()
        text = self._target.stop_text(stop)
        if stop.kind is StopKind.ENDED:
            self._output("".join(f"{line}\n" for line in self._target.report(stop)))
        body: Message = {
            "reason": reason or _REASONS[stop.kind], "threadId": stop.vcpu + 1,
            "allThreadsStopped": True, "description": text, "text": text,
        }  # fmt: skip
        if stop.number is not None and (kind := self._points.kind_of(stop.number)):
            names = {"function": "function breakpoint", "instruction": "instruction breakpoint"}
            body["reason"] = names.get(kind, body["reason"])
        self._event("stopped", body)

    def on_pause(self, _arguments: Arguments) -> None:
        """Answered when it has stopped already."""

    def on_continue(self, _arguments: Arguments) -> Message:
        """Run; at its end the debuggee goes."""
        if self._session.vm.is_stopped() and not self._session.is_in_the_past:
            self._after = self._end
        else:
            self._moves(self._session.resume)
        return {"allThreadsContinued": True}

    def _end(self) -> None:
        result = self._session.vm.result
        self._event("exited", {"exitCode": result.status if result else 0})
        self._event("terminated")

    def on_reverseContinue(self, _arguments: Arguments) -> None:  # noqa: N802
        """Run backwards."""
        self._moves(self._session.reverse_resume)

    def on_next(self, arguments: Arguments) -> None:
        """Step over calls."""
        index, by_line = self._step(arguments)
        self._moves(lambda: self._motion.step_over(index, by_line=by_line))

    def on_stepIn(self, arguments: Arguments) -> None:  # noqa: N802
        """Step into calls."""
        index, by_line = self._step(arguments)
        self._moves(lambda: self._motion.step_in(index, by_line=by_line))

    def on_stepOut(self, arguments: Arguments) -> None:  # noqa: N802
        """Run to the caller."""
        index, _ = self._step(arguments)
        self._moves(lambda: self._motion.step_out(index))

    def on_stepBack(self, arguments: Arguments) -> None:  # noqa: N802
        """Step back in time."""
        index, by_line = self._step(arguments)
        self._moves(lambda: self._motion.step_back(index, by_line=by_line))

    def _step(self, arguments: Arguments) -> tuple[int, bool]:
        index = self._index(int(arguments["threadId"]))
        return index, arguments.get("granularity", "statement") != "instruction"

    # ---- where to stop ----

    def on_setBreakpoints(self, arguments: Arguments) -> Message:  # noqa: N802
        """Source lines of one file."""
        return {"breakpoints": self._points.in_source(arguments)}

    def on_setFunctionBreakpoints(self, arguments: Arguments) -> Message:  # noqa: N802
        """Functions by name."""
        return {"breakpoints": self._points.at_functions(arguments)}

    def on_setInstructionBreakpoints(self, arguments: Arguments) -> Message:  # noqa: N802
        """Addresses."""
        return {"breakpoints": self._points.at_instructions(arguments)}

    def on_setExceptionBreakpoints(self, arguments: Arguments) -> Message:  # noqa: N802
        """Exit reasons."""
        return {"breakpoints": self._points.at_exits(arguments)}

    def on_setDataBreakpoints(self, arguments: Arguments) -> Message:  # noqa: N802
        """Memory."""
        return {"breakpoints": self._points.at_data(arguments)}

    def on_dataBreakpointInfo(self, arguments: Arguments) -> Message:  # noqa: N802
        """A name or an address, 8 bytes of it unless `bytes` says how many."""
        name, size = str(arguments["name"]), int(arguments.get("bytes") or 8)
        address = self._target.names.image.find(name)
        if address is None:
            return {"dataId": None, "description": f"{name} is no symbol and no address"}
        return {
            "dataId": f"{address:#x}/{size}", "description": f"{size} bytes at {address:#x}",
            "accessTypes": ["read", "write", "readWrite"],
        }  # fmt: skip

    # ---- the console ----

    def on_evaluate(self, arguments: Arguments) -> Message:
        """A register, a symbol; or, in the console, a verb of `ring1 debug`."""
        text = str(arguments["expression"]).strip()
        registers = self._session.vcpu.regs.as_dict()
        if text.lstrip("$") in registers:
            return _value(registers[text.lstrip("$")])
        address = self._target.names.settle(self._session.vcpu).find(text)
        if address is not None:
            return _value(address)
        if arguments.get("context") == "hover":
            raise UsageError(f"{text!r} has no value")
        before = self._session.now
        answer = self._shell.execute(text)
        if self._session.now != before:
            self._after = lambda: self._stopped(self._session.last, "goto")
        return {"result": "\n".join(answer.lines), "variablesReference": 0}


def _value(value: int) -> Message:
    return {"result": hex(value), "variablesReference": 0, "memoryReference": hex(value)}
