"""`--freq 2.4G,1.2G@10ms`: the processor's frequency, and when it changes."""

import re
from itertools import pairwise
from typing import Any, Final

from vmm.errors import UsageError

Plan = tuple[tuple[int, int], ...]
"""(ns since power-on, Hz), rising."""
LEAST, MOST = 1_000_000, 100_000_000_000
_SCALES: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_TIMES: Final = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
_STEP: Final = re.compile(
    r"([0-9]{1,12})(?:\.([0-9]{1,9}))?([KMG]?)(?:HZ)?(?:@([0-9]{1,15})(ns|us|ms|s))?", re.IGNORECASE
)


def frequency_plan(value: Any) -> Plan:
    """Read "2.4G", "1.2G@10ms", several with commas, or a number of Hz. Raises UsageError."""
    steps = [_step(word.strip(), number) for number, word in enumerate(str(value).split(","))]
    for (before, _), (after, _) in pairwise(steps):
        if after <= before:
            raise UsageError(f"--freq {value!r} goes back in time; put later changes last")
    return tuple(steps)


def _step(word: str, number: int) -> tuple[int, int]:
    found = _STEP.fullmatch(word)
    if not found:
        raise UsageError(f"--freq {word!r} is not a frequency; write 2.4G, or 1.2G@10ms for later")
    whole, part, letter, time, unit = found.groups()
    digits = (part or "").ljust(9, "0")
    scale = _SCALES[letter.upper()]
    hz = int(whole) * scale + int(digits) * scale // 10**9
    if not LEAST <= hz <= MOST:
        raise UsageError(f"--freq {word!r} is out of range; give from 1M to 100G")
    if number and not time:
        raise UsageError(f"--freq {word!r} says no time; write {word}@10ms")
    return int(time or 0) * _TIMES[(unit or "ns").lower()], hz
