"""Nothing of one machine is committed: no absolute paths of it, no registry's host."""

import re
from pathlib import Path

import pytest

# In pieces, so that this file does not match itself.
PLACES = ("wo" + "rk", "fa" + "rm", "tm" + "p", "ho" + "me", "op" + "t")
HOSTS = ("pypi" + r"\.org", "python" + "hosted", "deb" + r"\.debian", "proxy" + r"\.golang")
FORBIDDEN = re.compile(rf"(?<![\w.$}})-])/(?:{'|'.join(PLACES)})/|{'|'.join(HOSTS)}")


def test_no_tracked_file_names_a_place_of_one_machine(tracked: list[Path], root: Path) -> None:
    found = [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for path in tracked
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if FORBIDDEN.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    "line", [f'"/{PLACES[0]}/x"', f"cd /{PLACES[2]}/y", f"https://{'pypi'}.org"]
)
def test_they_are_found(line: str) -> None:
    assert FORBIDDEN.search(line)


@pytest.mark.parametrize(
    "line", [f"build/{PLACES[0]}/x", f"${{X}}/{PLACES[2]}/y", "net" + "work/x"]
)
def test_relative_paths_are_not(line: str) -> None:
    assert not FORBIDDEN.search(line)
