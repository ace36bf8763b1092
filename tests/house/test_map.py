"""The README's map and the Makefile's list name what there is."""

import re
import subprocess
from pathlib import Path

import pytest

TARGETS = [
    *(
        "dev",
        "build",
        "run",
        "test",
        "slow",
        "held",
        "bench",
        "check",
        "abi",
        "costs",
        "mutate",
        "guest",
        "tour",
        "wheel",
        "clean",
    ),
]
NOT_ROOMS = {".ci", ".github"}


def test_the_readme_names_every_room(tracked: list[Path], root: Path) -> None:
    readme = root / "README.md"
    if not readme.is_file():
        pytest.skip("there is no README.md yet")
    parts = (path.relative_to(root).parts for path in tracked)
    rooms = {part[0] for part in parts if len(part) > 1} - NOT_ROOMS
    text = readme.read_text()
    assert [room for room in sorted(rooms) if not re.search(rf"\b{room}/", text)] == []


def test_make_alone_lists_the_targets(root: Path) -> None:
    listed = subprocess.run(
        ["make", "-s", "-C", str(root)], capture_output=True, text=True, check=True
    )
    names = [line.split()[0] for line in listed.stdout.splitlines()]
    assert names == ["help", *TARGETS]
