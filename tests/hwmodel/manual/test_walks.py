"""Rights, walks and EPT, row by row as the manual says it: rights.txt, walks.txt, ept.txt.

The engine's own answer is asked (`Pcpu.explain_walk`), without and with effects, and the twin's.
"""

from collections.abc import Iterator

import pytest

from hwmodel.mem.ram import Ram
from hwmodel.mem.reference import Translated
from hwmodel.pcpu import Pcpu
from tests.hwmodel.manual.machine import (
    EPT_BITS,
    GUEST_BITS,
    Row,
    Space,
    make_pcpu,
    rows_of,
    table,
    told,
    word_of,
)

FLAGS = {"guest": 0x60, "ept": 0x300}


@pytest.fixture(scope="module", name="machine")
def _machine() -> Iterator[tuple[Pcpu, Ram]]:
    pcpu, ram = make_pcpu()
    yield pcpu, ram
    pcpu.close()


def judge(space: Space, access: str, result: str, kind: str) -> None:
    """Hold the walk against the row's result."""
    walked = access.endswith("walked") or result.startswith("sets")
    end = space.walk(access, effects=walked)
    if result.startswith("sets"):
        bits, mask = (EPT_BITS, FLAGS["ept"]) if kind == "ept" else (GUEST_BITS, FLAGS["guest"])
        wanted = {name: word_of(text, bits) & mask for name, text in
                  (word.split("=") for word in result.split()[1:])}  # fmt: skip
        assert {name: space.peek(name) & mask for name in wanted} == wanted
        return
    words = result.split()
    if words[0] == "ok":
        assert isinstance(end, Translated), told(end)
        assert words[1:] in ([], [hex(end.gpa)])
        return
    assert told(end) == result
    if not walked:
        again = space.walk(access, effects=True)
        assert told(again) == result


@table("rights.txt")
def test_rights(machine: tuple[Pcpu, Ram], row: Row) -> None:
    registers, entries, access, result, _ = row.cells
    judge(Space(*machine, registers, entries), access, result, "guest")


@table("walks.txt")
def test_walks(machine: tuple[Pcpu, Ram], row: Row) -> None:
    registers, entries, access, result, _ = row.cells
    judge(Space(*machine, registers, entries), access, result, "guest")


@table("ept.txt")
def test_ept(machine: tuple[Pcpu, Ram], row: Row) -> None:
    controls, entries, access, result, _ = row.cells
    judge(Space(*machine, controls + " ept", entries), access, result, "ept")


def test_there_are_more_than_two_hundred() -> None:
    tables = ("rights.txt", "walks.txt", "ept.txt", "invalidation.txt", "exits.txt")
    rows = [row for name in tables for row in rows_of(name)]
    assert len(rows) > 320
    assert all(row.section and row.cells[-1] for row in rows)
    assert len({row.cells[:-1] for row in rows}) == len(rows), "a row stands twice"
