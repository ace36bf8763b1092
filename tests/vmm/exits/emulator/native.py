"""The host processor as judge: compiles `native.c` and runs batches of cases through it."""

from __future__ import annotations

import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.vmm.exits.emulator.fake import SIZE

RECORD = struct.Struct(f"<IIII Q16QQQ 32s 256s {SIZE}s")
DEBUG_TRAP = 3


@dataclass(frozen=True)
class State:
    """Processor and memory before or after one instruction; `vector` is None if it ended well."""

    bits: int
    code: bytes
    regs: tuple[int, ...]
    rip: int
    rflags: int
    xmm: tuple[int, ...]
    memory: bytes
    vector: int | None = None
    error: int = 0
    address: int = 0


def compiler() -> str | None:
    """Return the C compiler, None if the machine has none."""
    return shutil.which("gcc") or shutil.which("cc")


def build(folder: Path) -> Path:
    """Compile the runner into `folder`."""
    runner = folder / "native"
    source = Path(__file__).with_name("native.c")
    subprocess.run([compiler() or "cc", "-O1", "-o", runner, source], check=True)
    return runner


def _pack(state: State) -> bytes:
    vectors = b"".join(value.to_bytes(16, "little") for value in state.xmm)
    code = state.code.ljust(32, b"\xcc")
    numbers = (state.bits, 0, 0, 0, 0, *state.regs, state.rip, state.rflags)
    return RECORD.pack(*numbers, code, vectors, state.memory)


def _unpack(raw: bytes, code: bytes) -> State:
    bits, vector, error, ran, address, *rest = RECORD.unpack(raw)
    regs, (rip, rflags, _, vectors, memory) = rest[:16], rest[16:]
    assert ran == 1, "the runner did not come back from the instruction"
    ended = vector == DEBUG_TRAP
    return State(
        bits=bits,
        code=code,
        regs=tuple(regs),
        rip=rip - 1 if ended else rip,
        rflags=rflags,
        xmm=tuple(int.from_bytes(vectors[n : n + 16], "little") for n in range(0, 256, 16)),
        memory=memory,
        vector=None if ended else vector,
        error=error,
        address=address,
    )


def execute(runner: Path, states: list[State]) -> list[State]:
    """Run each state's one instruction on the host; one process for all."""
    sent = b"".join(map(_pack, states))
    done = subprocess.run([runner], input=sent, stdout=subprocess.PIPE, check=True)
    size = RECORD.size
    assert len(done.stdout) == size * len(states), "the runner died"
    return [
        _unpack(done.stdout[n * size : (n + 1) * size], state.code)
        for n, state in enumerate(states)
    ]
