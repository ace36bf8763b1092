"""The text of ftrace's `trace` file, with KVM's events (Linux kernel/trace/trace_output.c)."""

from collections.abc import Iterator
from typing import BinaryIO, Final

from vmm.observe.trace.kvm_events import KvmEvent, KvmEvents
from vmm.observe.trace.records import Trace

FIRST_PID: Final = 1000
"""A vCPU's thread has this number plus its own; QEMU's threads are called so too."""
_HEAD: Final = """\
# tracer: nop
#
# entries-in-buffer/entries-written: {count}/{count}   #P:1
#{room}
#                                _-----=> irqs-off/BH-disabled
#                               / _----=> need-resched
#                              | / _---=> hardirq/softirq
#                              || / _--=> preempt-depth
#                              ||| / _-=> migrate-disable
#                              |||| /     delay
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
"""
_DIGITS: Final = 20  # room for a count
_GUARDED: Final = {"kvm_entry": "d....", "kvm_exit": "d...."}
"""Interrupts are off there."""


def write_ftrace(trace: Trace, file: BinaryIO) -> None:
    """Write the whole trace as text. Where a file can be gone back in, it is told only once."""
    if not file.seekable():
        count = sum(1 for _ in KvmEvents(trace))
        file.write(_HEAD.format(count=count, room="").encode())
        file.writelines(line.encode() for line in lines(trace))
        return
    size = len(_HEAD.format(count=0, room="")) + 2 * _DIGITS
    file.write(bytes(size))
    count = 0
    for line in lines(trace):
        file.write(line.encode())
        count += 1
    file.seek(0)
    room = " " * (2 * _DIGITS + 2 - 2 * len(str(count)))
    file.write(_HEAD.format(count=count, room=room).encode())


def lines(trace: Trace) -> Iterator[str]:
    """Yield one line an event, with its end."""
    frequency, at, stamp = trace.header.frequency, -1, ""
    heads: dict[tuple[int, str], tuple[str, str]] = {}
    for event in KvmEvents(trace):
        vcpu, cycle, name, text = event
        if cycle != at:
            at = cycle
            seconds, rest = divmod(cycle * 1_000_000 // frequency, 1_000_000)
            stamp = f"{seconds:5}.{rest:06}"
        head = heads.get((vcpu, name))
        if head is None:
            head = heads[vcpu, name] = _around(event)
        yield f"{head[0]}{stamp}{head[1]}{text}\n"


def _around(event: KvmEvent) -> tuple[str, str]:
    """What stands before and behind the time."""
    task = f"CPU {event.vcpu}/KVM"
    flags = _GUARDED.get(event.name, ".....")
    return (
        f"{task:>16}-{FIRST_PID + event.vcpu:<7} [000] {flags} ",
        f": {event.name}: ",
    )
