"""Thread identifiers: the VM is process 1, virtual CPU n is thread n + 1."""

from typing import Final

from vmm.errors import UsageError

PROCESS: Final = 1
ALL: Final = -1
"""Every thread."""
ANY: Final = 0
"""Whichever."""


def write_thread(index: int, *, multiprocess: bool) -> str:
    """Write the identifier of virtual CPU `index`."""
    return f"p{PROCESS:x}.{index + 1:x}" if multiprocess else f"{index + 1:x}"


def read_thread(text: bytes, count: int) -> int:
    """Return a thread's number from 1 on, ALL or ANY. Raises UsageError if there is none such."""
    words = text.decode("latin-1")
    process, thread = "1", words
    if words.startswith("p"):
        process, dot, thread = words[1:].partition(".")
        thread = thread if dot else "-1"
    try:
        numbers = int(process, 16), int(thread, 16)
    except ValueError:
        raise UsageError(f"{words!r} is no thread") from None
    if numbers[0] not in (ALL, ANY, PROCESS) or not ALL <= numbers[1] <= count:
        raise UsageError(f"there is no thread {words!r}")
    return ALL if numbers[0] == ALL else numbers[1]
