"""The frames of a Xen PV guest: its phys-to-machine list held against what the hypervisor knows.

Two lists lead from pseudo-physical to machine frames and back; each machine frame has a type and
two counts, which the engine counts anew from tables, roots, pins and registrations.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmm.errors import UsageError
from vmm.memory.pseudo import PseudoPhysical
from vmm.pv.xen.referee import summary

if TYPE_CHECKING:
    from hwmodel.cpu.xen import XenEngine
    from vmm.vm import VM

TYPES: Final = ("untyped", "L1 table", "L2 table", "L3 table", "L4 table", "segments", "writable")
"""enum frame_type (cext/xen.h)."""
FLAGS: Final[Mapping[int, str]] = {1: "the guest's", 2: "pinned", 4: "Xen's own", 8: "given back"}
_SHOWN: Final = 8


@dataclass(frozen=True, slots=True)
class Story:
    """What an audit found. `astray` are frames whose two lists disagree: pfn, mfn, pfn."""

    frames: int
    moved: int
    types: Mapping[str, int]
    pinned: int
    disagreements: int
    first: tuple[int, ...]
    astray: tuple[tuple[int, int, int], ...]
    breaches: int
    told: tuple[str, ...]
    """The referee's summary of them."""

    @property
    def is_sound(self) -> bool:
        """Whether every count and both lists agree."""
        return not self.disagreements and not self.astray


def p2m_story(vm: "VM") -> Story:
    """Audit the domain of a VM."""
    memory, engine = _parts(vm)
    types: Counter[str] = Counter()
    pinned, astray = 0, []
    for pfn, mfn in enumerate(memory.p2m):
        frame = engine.frame(mfn)
        if frame is None or not frame.flags & 1:
            types["not the guest's"] += 1
            continue
        types[TYPES[frame.type] if frame.types else TYPES[0]] += 1
        pinned += bool(frame.flags & 2)
        if engine.pfn_of(mfn) != pfn:
            astray.append((pfn, mfn, engine.pfn_of(mfn)))
    found, first = engine.audit()
    moved = sum(1 for pfn, mfn in enumerate(memory.p2m) if pfn != mfn)
    count = engine.breach_count()
    told = tuple(summary(engine.breaches(), count))
    return Story(
        len(memory.p2m), moved, dict(types), pinned, found, first, tuple(astray), count, told
    )


def story_lines(story: Story) -> list[str]:
    """Tell it."""
    lines = [
        f"{story.frames} frames, {story.moved} of them at another number in machine memory",
        *(f"  {count:>8} {name}" for name, count in sorted(story.types.items())),
        f"  {story.pinned:>8} pinned",
    ]
    if story.disagreements:
        mfn, *counts = story.first
        lines.append(f"{story.disagreements} frames are counted wrong; first {mfn:#x}: {counts}")
    for pfn, mfn, back in story.astray[:_SHOWN]:
        lines.append(f"frame {pfn:#x} is machine frame {mfn:#x}, which leads back to {back:#x}")
    if len(story.astray) > _SHOWN:
        lines.append(f"... and {len(story.astray) - _SHOWN} more")
    verdict = "every count and both lists agree" if story.is_sound else "the lists do not agree"
    return [*lines, f"{verdict}; {story.breaches} breaches of the rules so far", *story.told]


def frame_lines(vm: "VM", pfn: int) -> list[str]:
    """Tell of one frame. Raises UsageError for one that the guest has not."""
    memory, engine = _parts(vm)
    if not 0 <= pfn < len(memory.p2m):
        raise UsageError(f"frame {pfn:#x} is none of the guest's {len(memory.p2m):#x}; give less")
    mfn = memory.p2m[pfn]
    frame = engine.frame(mfn)
    assert frame is not None
    flags = [name for bit, name in FLAGS.items() if frame.flags & bit]
    kind = TYPES[frame.type] if frame.types else TYPES[0]
    return [
        f"frame {pfn:#x} is machine frame {mfn:#x}, which leads back to {engine.pfn_of(mfn):#x}",
        f"  {kind}: {frame.refs} references, {frame.types} of them as that; {', '.join(flags)}",
    ]


def _parts(vm: "VM") -> tuple[PseudoPhysical, "XenEngine"]:
    assert vm.domain is not None
    assert isinstance(vm.memory, PseudoPhysical)
    return vm.memory, vm.domain.engine
