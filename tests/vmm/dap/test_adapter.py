"""A session as VS Code has it: the real command, spoken to over its pipes."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from hwmodel.arch.exits import ExitReason
from vmm.dap.channel import ChannelError, Decoder, encode

ROOT = Path(__file__).parents[3]
MAIN = "guest_kernel/lib/main.c"


class Editor:
    """Sends requests, collects events."""

    made: ClassVar[list["Editor"]] = []

    def __init__(self, *words: object) -> None:
        command = [sys.executable, "-m", "vmm", "debug", "--dap", *map(str, words)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.decoder = Decoder()
        self.messages: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.sequence = 0
        self.made.append(self)

    def _message(self) -> dict[str, Any]:
        assert self.process.stdout
        while not self.messages:
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            if not data:
                raise EOFError(self.process.stderr and self.process.stderr.read())
            self.messages += self.decoder.feed(data)
        return self.messages.pop(0)

    def send(self, command: str, **arguments: Any) -> int:
        assert self.process.stdin
        self.sequence += 1
        message = {"type": "request", "command": command, "arguments": arguments}
        self.process.stdin.write(encode({"seq": self.sequence} | message))
        self.process.stdin.flush()
        return self.sequence

    def response(self, sequence: int) -> dict[str, Any]:
        while True:
            message = self._message()
            if message["type"] == "event":
                self.events.append(message)
            elif message["request_seq"] == sequence:
                return message

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        answer = self.response(self.send(command, **arguments))
        assert answer["success"], answer
        return dict(answer.get("body") or {})

    def fails(self, command: str, **arguments: Any) -> str:
        answer = self.response(self.send(command, **arguments))
        assert not answer["success"]
        return str(answer["message"])

    def event(self, name: str) -> dict[str, Any]:
        """The next event of a name, those before it are kept."""
        while True:
            for number, message in enumerate(self.events):
                if message["event"] == name:
                    del self.events[number]
                    return dict(message["body"])
            message = self._message()
            if message["type"] == "event":
                self.events.append(message)

    def place(self, thread: int = 1) -> tuple[str, int]:
        """Function and line where a thread is."""
        frame = self.ask("stackTrace", threadId=thread, levels=1)["stackFrames"][0]
        return frame["name"].partition("+")[0], frame["line"]

    def moved(self, command: str, **arguments: Any) -> dict[str, Any]:
        self.ask(command, threadId=1, **arguments)
        return self.event("stopped")

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    Editor.made.clear()
    yield
    for one in Editor.made:
        one.close()


@pytest.fixture
def editor(images: Path) -> Iterator[Editor]:
    one = Editor("--memory", "4M")
    one.ask("initialize", adapterID="ring1")
    one.ask("launch", image=str(images / "hello.elf"))
    one.event("initialized")
    yield one
    one.ask("disconnect")
    assert one.process.wait(30) == 0


def line_of(text: str, file: str = MAIN) -> int:
    lines = (ROOT / file).read_text().splitlines()
    return next(n for n, line in enumerate(lines, 1) if text in line)


def test_exit_reasons_are_exception_filters(images: Path) -> None:
    one = Editor()
    offered = one.ask("initialize", adapterID="ring1")
    for name in ("StepBack", "InstructionBreakpoints", "DataBreakpoints", "ReadMemoryRequest",
                 "WriteMemoryRequest", "DisassembleRequest", "ExceptionFilterOptions"):  # fmt: skip
        assert offered[f"supports{name}"] is True
    filters = {row["filter"] for row in offered["exceptionBreakpointFilters"]}
    assert filters == {reason.name for reason in ExitReason} | {"*"}
    assert "comes after launch" in one.fails("threads")
    assert "no such" in one.fails("launch", image=str(images / "nonsense.elf"))
    one.ask("disconnect")
    assert one.process.wait(30) == 0


def test_lines_forwards_and_backwards(editor: Editor) -> None:
    line = line_of("desc_init();")
    answer = editor.ask("setBreakpoints", source={"path": f"/src/elsewhere/{MAIN}"},
                        breakpoints=[{"line": line}, {"line": 100_000}])["breakpoints"]  # fmt: skip
    assert [one["verified"] for one in answer] == [True, False]
    editor.ask("configurationDone")
    assert editor.event("stopped")["reason"] == "breakpoint"
    assert editor.place() == ("kernel_main", line)
    assert editor.moved("next")["reason"] == "step"
    name, after = editor.place()
    assert (name, after > line) == ("kernel_main", True)
    editor.moved("stepBack")
    assert editor.place() == ("kernel_main", line)
    editor.moved("stepIn")
    assert editor.place()[0] == "desc_init"
    editor.moved("stepOut")
    assert editor.place()[0] == "kernel_main"
    editor.moved("stepBack", granularity="instruction")
    assert editor.place()[0] == "desc_init"
    assert editor.moved("reverseContinue")["reason"] == "breakpoint"
    assert editor.place() == ("kernel_main", line)
    assert editor.moved("reverseContinue")["reason"] == "entry"


def test_exits_functions_and_data(editor: Editor) -> None:
    editor.ask("setExceptionBreakpoints", filters=["CPUID"], filterOptions=[])
    editor.ask("configurationDone")
    stop = editor.event("stopped")
    assert (stop["reason"], "CPUID" in stop["text"]) == ("exception", True)
    assert editor.ask("exceptionInfo", threadId=1)["exceptionId"] == "CPUID"
    options = [{"filterId": "IO_INSTRUCTION", "condition": "port=0x3f8 & n>=3"},
               {"filterId": "MSR_READ", "condition": "port=="}]  # fmt: skip
    answer = editor.ask("setExceptionBreakpoints", filters=[], filterOptions=options)
    assert [one["verified"] for one in answer["breakpoints"]] == [True, False]
    assert "column" in answer["breakpoints"][1]["message"]
    assert "IO_INSTRUCTION" in editor.moved("continue")["text"]
    editor.ask("setExceptionBreakpoints", filters=[])
    editor.ask("setFunctionBreakpoints", breakpoints=[{"name": "power_off"}, {"name": "nobody"}])
    assert editor.moved("continue")["reason"] == "function breakpoint"
    assert editor.place()[0] == "power_off"
    stack = int(editor.ask("evaluate", expression="rsp")["result"], 0)
    info = editor.ask("dataBreakpointInfo", name=hex(stack))
    editor.ask("setDataBreakpoints", breakpoints=[{"dataId": info["dataId"]}])
    assert editor.moved("reverseContinue")["reason"] == "data breakpoint"


def test_threads_registers_memory_and_instructions(editor: Editor) -> None:
    editor.ask("setFunctionBreakpoints", breakpoints=[{"name": "test_main"}])
    editor.ask("configurationDone")
    editor.event("stopped")
    assert "long64" in editor.ask("threads")["threads"][0]["name"]
    frames = editor.ask("stackTrace", threadId=1)["stackFrames"]
    assert [f["name"].partition("+")[0] for f in frames] == [
        "test_main", "kernel_main", "in_long_mode"
    ]  # fmt: skip
    assert frames[1]["source"]["path"].endswith(MAIN)
    scopes = editor.ask("scopes", frameId=frames[0]["id"])["scopes"]
    assert [scope["name"] for scope in scopes] == ["Registers", "System registers", "VMCS"]
    tables = [editor.ask("variables", variablesReference=s["variablesReference"])["variables"]
              for s in scopes]  # fmt: skip
    values = {row["name"]: int(row["value"], 0) for table in tables for row in table}
    assert values["rip"] == int(frames[0]["instructionPointerReference"], 0)
    assert values["cr0"] & 0x8000_0001 == 0x8000_0001
    assert values["GUEST_RIP"] == values["rip"]
    reference = scopes[0]["variablesReference"]
    answer = editor.ask("setVariable", variablesReference=reference, name="rbx", value="0x1234")
    assert answer["value"] == "0x1234"
    assert editor.ask("evaluate", expression="$rbx")["result"] == "0x1234"
    data = base64.b64encode(b"ring1").decode()
    assert editor.ask("writeMemory", memoryReference="0x200000", data=data)["bytesWritten"] == 5
    read = editor.ask("readMemory", memoryReference="0x200000", offset=1, count=4)
    assert base64.b64decode(read["data"]) == b"ing1"
    hole = editor.ask("readMemory", memoryReference="0xfee00000", count=16)
    assert (hole["data"], hole["unreadableBytes"]) == ("", 16)
    at = hex(values["rip"])
    rows = editor.ask("disassemble", memoryReference=at, instructionCount=8, instructionOffset=-2)
    addresses = [int(row["address"], 0) for row in rows["instructions"]]
    assert addresses[2] == values["rip"]
    assert addresses == sorted(addresses)
    assert len(addresses) == 8
    assert "cycle" in editor.ask("evaluate", expression="when", context="repl")["result"]
    assert editor.ask("evaluate", expression="exit next", context="repl")
    assert editor.event("stopped")["reason"] == "goto"


def test_the_end_comes_twice_first_to_look_back_from(editor: Editor) -> None:
    editor.ask("configurationDone")
    stop = editor.event("stopped")
    assert stop["reason"] == "end of the run"
    said = "".join(e["body"]["output"] for e in editor.events if e["event"] == "output")
    assert "Good night." in said
    assert "#0" in said
    editor.moved("stepBack", granularity="instruction")
    editor.moved("continue")
    editor.ask("continue", threadId=1)
    assert editor.event("exited")["exitCode"] == 0
    editor.event("terminated")


def test_a_guest_that_runs_is_paused(tmp_path: Path) -> None:
    image = tmp_path / "spin.bin"
    image.write_bytes(bytes.fromhex("66 40 eb fc"))
    one = Editor("--memory", "1M", image)
    one.ask("initialize")
    one.ask("launch")
    one.ask("configurationDone")
    pause = one.send("pause", threadId=1)
    assert one.event("stopped")["reason"] == "pause"
    assert one.response(pause)["success"]
    one.send("continue", threadId=1)
    one.send("disconnect")
    assert one.process.wait(30) == 0


SENSELESS: list[tuple[str, dict[str, Any]]] = [
    ("next", {"threadId": 9}),
    ("next", {}),
    ("variables", {"variablesReference": 9999}),
    ("setBreakpoints", {}),
    ("nonsense", {}),
    ("readMemory", {"memoryReference": "zz"}),
    ("writeMemory", {"memoryReference": "0", "data": "~~"}),
    ("disassemble", {}),
    ("setVariable", {"variablesReference": 1, "name": "cr0", "value": "1"}),
    ("evaluate", {"expression": "no_such_verb"}),
    ("launch", {}),
    ("scopes", {"frameId": -999}),
]


def test_requests_without_sense_are_refused(editor: Editor) -> None:
    for command, arguments in SENSELESS:
        assert editor.fails(command, **arguments), command
        assert editor.ask("threads")


def test_messages_come_in_any_pieces() -> None:
    stream = encode({"a": 1}) + encode({"b": "\u00e4"})
    for size in (1, 3, 1000):
        decoder, found = Decoder(), list[Any]()
        for at in range(0, len(stream), size):
            found += decoder.feed(stream[at : at + size])
        assert found == [{"a": 1}, {"b": "\u00e4"}]


@pytest.mark.parametrize(
    "data",
    [b"\r\n\r\n", b"Content-Length: x\r\n\r\n", b"Content-Length: 99999999999\r\n\r\n",
     b"Content-Length: 2\r\n\r\n[]", b"Content-Length: 2\r\n\r\nxx", b"hello" * 2000,
     b"Content-Length: %d\r\n\r\n%b" % (200_000, b"[" * 200_000)],
)  # fmt: skip
def test_what_is_no_message_ends_the_session(data: bytes) -> None:
    with pytest.raises(ChannelError):
        list(Decoder().feed(data))


def test_noise_on_standard_input_is_one_line_and_status_64(images: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vmm", "debug", "--dap", str(images / "hello.elf")],
        input=json.dumps({"no": "header"}) + "\r\n\r\n", capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 64
    assert done.stderr.startswith("ring1: --dap:")
    assert len(done.stderr.splitlines()) == 1
