"""`--sched credit,slice=5ms`: how virtual CPUs share physical ones.

credit | rr | gang        the policy: Xen's credit scheduler, round robin, gangs in slots
slice=TIME                how long a turn is [30ms; rr and gang: 10ms], as in 500us
ratelimit=TIME            nobody is preempted before it ran so long [credit: 1ms]
window=CYCLES             how far physical CPUs may be apart in time [1000]
switch=CYCLES             what putting another virtual CPU on a physical one costs [4812]
weight=N cap=PERCENT      of this guest, for credit [256, none]
affinity=0-1+3            the physical CPUs that this guest may use [all]
nodes=N                   NUMA nodes that the physical CPUs are divided among [1]
wake=CYCLES               how much later who is woken gets ready, to see what a race makes of it
preempt=ADDRESS[/N]       whoever comes to this instruction (each N-th time) loses its turn
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Protocol

from vmm.errors import UsageError

SWITCH_CYCLES: Final = 4812
"""Dall et al., ISCA 2016, "ARM Virtualization: Performance and Architectural Implications",
Table II: VM switch of KVM on x86 (Xeon E5-2450)."""
PCPUS_MAX: Final = 64
_TIMES: Final = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
_PLACE: Final = re.compile(r"0x([0-9a-f]{1,16})(?:/([1-9][0-9]{0,9}))?")
_TIME: Final = re.compile(r"([0-9]{1,9})(ns|us|ms|s)")
_MS: Final = 1_000_000


class PolicyName(StrEnum):
    """Who decides."""

    CREDIT = "credit"
    ROUND_ROBIN = "rr"
    GANG = "gang"


_SLICES: Final = {PolicyName.CREDIT: 30 * _MS, PolicyName.ROUND_ROBIN: 10 * _MS,
                  PolicyName.GANG: 10 * _MS}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SchedOptions:
    """What `--sched` says; times in ns, the rest in cycles, percent or as it is counted."""

    policy: PolicyName = PolicyName.CREDIT
    slice_ns: int = 30 * _MS
    ratelimit_ns: int = _MS
    window: int = 1000
    switch: int = SWITCH_CYCLES
    weight: int = 256
    cap: int = 0
    affinity: frozenset[int] | None = None
    nodes: int = 1
    wake: int = 0
    preempt: tuple[int, int] | None = None
    """A linear address of the guest's, and n: each n-th who comes there loses its turn."""

    @classmethod
    def of(cls, text: "str | SchedOptions") -> "SchedOptions":
        """Read the option. Raises UsageError, one line that names the word."""
        if isinstance(text, SchedOptions):
            return text
        first, *rest = [word.strip() for word in text.split(",")]
        if first not in list(PolicyName):
            raise _wrong(text, first, f"begin with one of {', '.join(PolicyName)}")
        made = cls(PolicyName(first), _SLICES[PolicyName(first)])
        for word in rest:
            key, _, value = word.partition("=")
            if key not in _WORDS:
                raise _wrong(text, word, f"the words are {', '.join(_WORDS)}")
            name, parse = _WORDS[key]
            made = replace(made, **{name: parse(text, word, value)})  # type: ignore[arg-type]
        return made


def _wrong(text: str, word: str, remedy: str) -> UsageError:
    return UsageError(f"--sched {text!r}: {word!r} is not understood; {remedy}")


def _time(text: str, word: str, value: str) -> int:
    found = _TIME.fullmatch(value)
    if found is None or (word.startswith("slice") and not int(found[1])):
        raise _wrong(text, word, "write a time, as in slice=5ms")
    return int(found[1]) * _TIMES[found[2]]


def _between(low: int, high: int) -> Callable[[str, str, str], int]:
    def parse(text: str, word: str, value: str) -> int:
        if not (value.isascii() and value.isdigit() and low <= int(value[:12]) <= high):
            raise _wrong(text, word, f"give a number from {low} to {high}")
        return int(value)

    return parse


def _set(text: str, word: str, value: str) -> frozenset[int]:
    found: set[int] = set()
    for part in value.split("+"):
        low, dash, high = part.partition("-")
        if not low.isdigit() or (dash and not high.isdigit()) or len(part) > len("63-63"):
            raise _wrong(text, word, "write physical CPUs, as in affinity=0-1+3")
        found.update(range(int(low), int(high or low) + 1))
    if not found or max(found) >= PCPUS_MAX:
        raise _wrong(text, word, f"name physical CPUs from 0 to {PCPUS_MAX - 1}")
    return frozenset(found)


def _place(text: str, word: str, value: str) -> tuple[int, int]:
    found = _PLACE.fullmatch(value)
    if found is None:
        raise _wrong(text, word, "write a linear address and how often, as in preempt=0x101c40/100")
    return int(found[1], 16), int(found[2] or 1)


_WORDS: Final[dict[str, tuple[str, Callable[[str, str, str], object]]]] = {
    "slice": ("slice_ns", _time),
    "ratelimit": ("ratelimit_ns", _time),
    "window": ("window", _between(1, 10**9)),
    "switch": ("switch", _between(0, 10**9)),
    "weight": ("weight", _between(1, 65535)),
    "cap": ("cap", _between(1, 100 * PCPUS_MAX)),
    "affinity": ("affinity", _set),
    "nodes": ("nodes", _between(1, 8)),
    "wake": ("wake", _between(0, 10**9)),
    "preempt": ("preempt", _place),
}


class Choices(Protocol):
    """What of a `Config` concerns the machine."""

    @property
    def pcpus(self) -> int:
        """Physical CPUs."""

    @property
    def sched(self) -> SchedOptions | None:
        """`--sched`."""


_KNOW_ONE: Final = ("apicv", "gdb", "trace", "max_instructions")


def check_machine(config: Choices) -> None:
    """Refuse physical CPUs that are not there, and with several what knows only one."""
    affinity = config.sched.affinity if config.sched else None
    if affinity and max(affinity) >= config.pcpus:
        raise UsageError(
            f"--sched affinity: there is no physical CPU {max(affinity)}; "
            f"give --pcpus {max(affinity) + 1}"
        )
    for name in _KNOW_ONE if config.pcpus > 1 else ():
        if getattr(config, name):
            option = name.replace("_", "-")
            raise UsageError(f"--{option} knows one physical CPU; leave it or --pcpus out")
