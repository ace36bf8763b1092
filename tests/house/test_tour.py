"""The guided tour is in order, and no number is used twice."""

import runpy
from pathlib import Path
from typing import Any

TOUR: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("tour.py")))


def test_numbers_are_unique(root: Path) -> None:
    numbers = [stop.number for stop in TOUR["stops"](root)]
    assert len(set(numbers)) == len(numbers)


def test_stops_are_printed_in_order_with_their_code(tmp_path: Path) -> None:
    (tmp_path / "vmm").mkdir()
    (tmp_path / "cext").mkdir()
    python = "# Tour 2.1: then this\ndef f():\n    a = 1\n\n    return a\n\n\nx = 2\n"
    (tmp_path / "vmm" / "a.py").write_text(python)
    (tmp_path / "cext" / "b.c").write_text("/* Tour 1.10: last of one */\nint b;\n\nint c;\n")
    (tmp_path / "cext" / "c.c").write_text("/* Tour 1.9: first */\nint d;\n")
    first, second, third = TOUR["stops"](tmp_path)
    assert (first.number, second.number, third.number) == ((1, 9), (1, 10), (2, 1))
    assert second.lines == ("/* Tour 1.10: last of one */", "int b;")
    assert third.lines == tuple(python.splitlines()[:5])
    assert third.text().startswith("--- vmm/a.py:1\n# Tour 2.1")
