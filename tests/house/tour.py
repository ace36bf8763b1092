"""Prints the guided tour: every comment `Tour N.M: ...` in order, with the code it introduces.

A stop is a comment (`# Tour 2.1: why`, or in C `/* Tour 2.1: why */`) and what follows it: up to
the first blank line before code that stands no deeper than the comment, or LONGEST lines.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOMS = ("hwmodel", "cext", "vmm", "guest_kernel")
SUFFIXES = {".py", ".c", ".h", ".S"}
LONGEST = 30
TAG = re.compile(r"^(\s*)(?:#|/\*|\*|//)\s*Tour (\d+)\.(\d+):")


@dataclass(frozen=True, slots=True)
class Stop:
    """One stop of the tour: its number, where it stands, its lines."""

    number: tuple[int, int]
    place: str
    lines: tuple[str, ...]

    def text(self) -> str:
        """The stop as it is printed."""
        return "\n".join([f"--- {self.place}", *self.lines, ""])


def follows(lines: list[str], indent: int) -> Iterator[str]:
    """The comment at the head of `lines` and the code that belongs to it."""
    for index, line in enumerate(lines[:LONGEST]):
        rest = [later for later in lines[index + 1 :] if later.strip()]
        depth = len(rest[0]) - len(rest[0].lstrip()) if rest else 0
        if not line.strip() and depth <= indent:
            return
        yield line


def stops(root: Path) -> list[Stop]:
    """All stops under `root`, in the order of the tour."""
    found = []
    files = (path for room in ROOMS for path in sorted((root / room).rglob("*")))
    for path in (path for path in files if path.suffix in SUFFIXES):
        lines = path.read_text().splitlines()
        for index, line in enumerate(lines):
            if tag := TAG.match(line):
                place = f"{path.relative_to(root)}:{index + 1}"
                code = tuple(follows(lines[index:], len(tag[1])))
                found.append(Stop((int(tag[2]), int(tag[3])), place, code))
    return sorted(found, key=lambda stop: (stop.number, stop.place))


if __name__ == "__main__":
    sys.stdout.write("\n".join(stop.text() for stop in stops(Path(__file__).parents[2])))
