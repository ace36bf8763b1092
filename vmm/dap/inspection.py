"""What an editor shows of a stopped VM: threads, call chains, registers, memory, instructions."""

import base64
from pathlib import PurePosixPath
from typing import Any, Final

from hwmodel.arch.vmcs import Field
from vmm.dap.channel import Message
from vmm.debug.session import Session
from vmm.debug.target import Target, exit_text
from vmm.debug.view import disassemble
from vmm.errors import UsageError

_REGISTERS, _SYSTEM, _VMCS = 1, 2, 3
_SCOPES: Final = {_REGISTERS: "Registers", _SYSTEM: "System registers", _VMCS: "VMCS"}
_KINDS: Final = 8
"""variablesReference: the vCPU's number times this and the scope."""
_BEFORE: Final = 16  # bytes of the longest instruction and one more
Arguments = dict[str, Any]


class Inspection:
    """The requests that only look, and those that write what was looked at."""

    _session: Session
    _target: Target

    def _index(self, thread: int) -> int:
        if not 1 <= thread <= len(self._target.vcpus):
            raise UsageError(f"there is no thread {thread}")
        return thread - 1

    # ---- where it is ----

    def on_threads(self, _arguments: Arguments) -> Message:
        """Virtual CPUs."""
        rows = [
            {"id": vcpu.index + 1, "name": f"vCPU {vcpu.index} ({self._target.mode_text(vcpu)})"}
            for vcpu in self._target.vcpus
        ]
        return {"threads": rows}

    def on_stackTrace(self, arguments: Arguments) -> Message:  # noqa: N802
        """The call chain by the image's own names."""
        index = self._index(int(arguments["threadId"]))
        named = self._target.names.backtrace(self._target.vcpus[index])
        frames = []
        for number, one in enumerate(named):
            frame: Message = {
                "id": index * 256 + number + 1, "name": str(one.place or hex(one.pc)),
                "line": one.line.line if one.line else 0, "column": 0,
                "instructionPointerReference": hex(one.pc),
            }  # fmt: skip
            if one.line:
                path = one.line.file
                frame["source"] = {"name": PurePosixPath(path).name, "path": path}
            frames.append(frame)
        start, count = int(arguments.get("startFrame", 0)), int(arguments.get("levels") or 256)
        return {"stackFrames": frames[start : start + count], "totalFrames": len(frames)}

    def on_scopes(self, arguments: Arguments) -> Message:
        """Registers, system registers, the VMCS."""
        index = self._index((int(arguments["frameId"]) - 1) // 256 + 1)
        rows = [
            {"name": name, "variablesReference": index * _KINDS + kind, "expensive": kind == _VMCS}
            for kind, name in _SCOPES.items()
        ]
        return {"scopes": rows}

    def on_variables(self, arguments: Arguments) -> Message:
        """What is in a scope."""
        reference = int(arguments["variablesReference"])
        vcpu = self._target.vcpus[self._index(reference // _KINDS + 1)]
        match reference % _KINDS:
            case 1:
                values = vcpu.regs.as_dict()
            case 2:
                values = {
                    "cr0": vcpu.guest_cr0(), "cr2": vcpu.regs.cr2, "cr3": vcpu.regs.cr3,
                    "cr4": vcpu.guest_cr4(), "efer": vcpu.regs.efer, "lstar": vcpu.regs.lstar,
                    "kernel_gs_base": vcpu.regs.kernel_gs_base, "dr6": vcpu.regs.dr6,
                    "dr7": vcpu.regs.dr7,
                }  # fmt: skip
            case _:
                values = {field.name: vcpu.vmcs[field] for field in Field}
        rows = [
            {"name": name, "value": hex(value), "memoryReference": hex(value),
             "variablesReference": 0} for name, value in values.items()
        ]  # fmt: skip
        return {"variables": rows}

    def on_setVariable(self, arguments: Arguments) -> Message:  # noqa: N802
        """Write a register."""
        reference, name = int(arguments["variablesReference"]), str(arguments["name"])
        vcpu = self._target.vcpus[self._index(reference // _KINDS + 1)]
        value = int(str(arguments["value"]), 0)
        if reference % _KINDS != _REGISTERS or name not in vcpu.regs.as_dict():
            raise UsageError(f"{name} cannot be set here; the general registers can")
        self._target.set_state(vcpu, lambda: setattr(vcpu.regs, name, value))
        return {"value": hex(value)}

    def on_exceptionInfo(self, _arguments: Arguments) -> Message:  # noqa: N802
        """The exit that it stopped at."""
        vmexit = self._session.open_exit or self._target.last_exit(self._session.vcpu)
        if vmexit is None:
            raise UsageError("there was no exit yet")
        return {"exceptionId": vmexit.name, "description": exit_text(vmexit), "breakMode": "always"}

    # ---- memory ----

    def on_readMemory(self, arguments: Arguments) -> Message:  # noqa: N802
        """Linear memory; what cannot be read is counted."""
        address = int(str(arguments["memoryReference"]), 0) + int(arguments.get("offset", 0))
        count = max(0, min(int(arguments["count"]), 1 << 20))
        data = self._target.read(self._session.vcpu, address, count)
        return {
            "address": hex(address), "data": base64.b64encode(data).decode(),
            "unreadableBytes": count - len(data),
        }  # fmt: skip

    def on_writeMemory(self, arguments: Arguments) -> Message:  # noqa: N802
        """Linear memory, all of it or nothing."""
        address = int(str(arguments["memoryReference"]), 0) + int(arguments.get("offset", 0))
        data = base64.b64decode(str(arguments["data"]), validate=True)
        self._target.write(self._session.vcpu, address, data)
        return {"bytesWritten": len(data)}

    def on_disassemble(self, arguments: Arguments) -> Message:
        """Instructions from an address on; before it, from the nearest symbol."""
        base = int(str(arguments["memoryReference"]), 0) + int(arguments.get("offset", 0))
        skip, count = int(arguments.get("instructionOffset", 0)), int(arguments["instructionCount"])
        lines = self._around(base, skip, max(0, min(count, 4096)))
        return {"instructions": lines}

    def _around(self, base: int, skip: int, count: int) -> list[Message]:
        vcpu, start = self._session.vcpu, base
        place = self._target.names.settle(vcpu).at(base)
        if skip < 0:
            start = base - (place.offset if place and place.offset else -skip * _BEFORE)
        found = disassemble(vcpu, start, count + abs(skip) * _BEFORE)
        first = next((n for n, one in enumerate(found) if one.address >= base), 0) + skip
        missing = [{"address": hex(max(base + n, 0)), "instruction": "?"} for n in range(first, 0)]
        rows = [
            {"address": hex(one.address), "instructionBytes": one.code.hex(" "),
             "instruction": one.text, "symbol": str(self._target.names.image.at(one.address) or "")}
            for one in found[max(first, 0) :]
        ]  # fmt: skip
        return [*missing, *rows][:count]
