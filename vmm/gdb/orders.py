"""What a packet may ask the server to do with the guest; every other packet is only answered."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Continue:
    """Run to the next stop; backwards if `back`."""

    back: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """Let virtual CPU `vcpu` make a step, or take one back."""

    vcpu: int
    back: bool = False


@dataclass(frozen=True, slots=True)
class StepRange:
    """Let virtual CPU `vcpu` make steps while it is at `start` or behind, and before `end`."""

    vcpu: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Leave:
    """The client goes; the guest runs on, or ends if `kills`."""

    kills: bool = False


Order = Continue | Step | StepRange | Leave
