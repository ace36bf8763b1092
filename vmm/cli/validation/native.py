"""Runs blocks on the host's own processor: a child process, `python -m vmm.cli.validation.native`.

It stays on one processor and reads loops in hexadecimal, a line each; for each it writes the least
number of core cycles a round took. The time-stamp counter need not go at the core's frequency: a
chain of additions, one a cycle on every processor here, is timed beside each loop.
"""

import ctypes
import mmap
import os
import sys
from collections.abc import Callable
from typing import Final

ROUNDS: Final = 400
RUNS: Final = 60
_CHAIN: Final = 64
_AREA: Final = 1 << 16
# mov rax, rdi ... : System V ABI, first argument the memory area, second the rounds.
_SAVE: Final = "53554154415541564157"  # push rbx, rbp, r12 to r15
_RESTORE: Final = "415f415e415d415c5d5b"
_AREAS: Final = "4989f7 4889fe 488dbe00200000 488d9e00400000"  # r15 rounds; rsi, rdi, rbx
_FENCE: Final = "0faee8"
_BEGIN: Final = "0faee8 0f31 48c1e220 4809d0 50 0faee8"  # rdtsc; push
_END: Final = "0faee8 0f31 48c1e220 4809d0 59 4829c8"  # rdtsc; pop rcx; sub rax, rcx
_ONES: Final = "".join(
    f"{'44' if n > 7 else ''}0f28{0x86 | (n & 7) << 3:02x}{0x1000:08x}".replace(
        "00001000", "00100000"
    )
    for n in range(16)
)  # movaps xmmN, [rsi + 0x1000]
_ZERO: Final = "31c031c931d231ed4531c04531c94531d24531db4531e44531ed4531f6"


def _loop(body: bytes) -> bytes:
    """The body, and DEC R15; JNZ to it."""
    tail = b"\x49\xff\xcf"
    back = -(len(body) + len(tail) + 6)
    return body + tail + b"\x0f\x85" + back.to_bytes(4, "little", signed=True)


def function(body: bytes) -> bytes:
    """The machine code of int64_t f(void *area, int64_t rounds): ticks that the rounds took."""
    head = bytes.fromhex(_SAVE + _AREAS.replace(" ", "") + _ONES + _BEGIN.replace(" ", "") + _ZERO)
    head += b"\x90" * (-len(head) % 64)
    tail = bytes.fromhex(_END.replace(" ", "") + _RESTORE + "c3")
    return head + _loop(body) + tail


class _Machine:
    def __init__(self) -> None:
        self._code = mmap.mmap(-1, _AREA, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._area = mmap.mmap(-1, _AREA)
        self._area[0x1000:0x1010] = b"\0\0\x80\x3f" * 4  # 1.0, four times
        self.code_at = ctypes.addressof(ctypes.c_char.from_buffer(self._code))
        self.area_at = ctypes.addressof(ctypes.c_char.from_buffer(self._area))

    def put(self, body: bytes, at: int) -> Callable[[int], int]:
        code = function(body)
        self._code[at : at + len(code)] = code
        kind = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)
        call = kind(self.code_at + at)
        return lambda rounds: int(call(self.area_at, rounds))


def _ticks(call: Callable[[int], int]) -> float:
    """Ticks a round: the difference of a long and a short run leaves the frame out."""
    long, short = (min(call(rounds) for _ in range(RUNS)) for rounds in (2 * ROUNDS, ROUNDS))
    return (long - short) / ROUNDS


def measure(bodies: list[bytes]) -> list[float]:
    """Cycles a round of each loop."""
    machine = _Machine()
    chain = machine.put(b"\x48\x83\xc0\x01" * _CHAIN, 0x8000)  # add rax, 1
    found = []
    for body in bodies:
        call = machine.put(body, 0)
        pairs = [(_ticks(call), _ticks(chain)) for _ in range(3)]
        found.append(min(ticks / unit for ticks, unit in pairs) * _CHAIN)
    return found


def main() -> None:
    """Read loops, write cycles."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for cycles in measure([bytes.fromhex(line) for line in sys.stdin.read().split()]):
        print(f"{cycles:.4f}")


if __name__ == "__main__":
    main()
