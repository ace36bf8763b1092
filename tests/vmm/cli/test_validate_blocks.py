"""`ring1 bench validate`: what it compares is what it says; nobody asks how fast the host is."""

import re
from pathlib import Path

import pytest

from hwmodel.cpu.pace import block_cycles, cost_tables
from hwmodel.timing.tables.mca import CPUS
from vmm.cli.validation import blocks as section
from vmm.cli.validation.generated import COUNT, HELD_OUT, KINDS, blocks
from vmm.cli.validation.native import measure


def test_blocks_are_as_many_and_the_same_each_time() -> None:
    made = blocks()
    assert made == blocks()
    assert len(made) == COUNT >= 300
    assert sum(block.held_out for block in made) == round(HELD_OUT * COUNT)
    assert {block.kind for block in made} == set(KINDS)
    assert len({block.lines for block in made}) == COUNT


@pytest.mark.parametrize("table", cost_tables())
def test_each_block_has_a_price(table: str) -> None:
    for block in blocks()[:80]:
        cycles = section.predicted(table, section.assembled(block))
        assert (len(block.lines) + 2) / 8 <= cycles < 40 * len(block.lines)


def loop(text: str) -> float:
    from tests.bare import assemble

    return section.predicted("zen3", assemble(text, 0))


# AMD's optimization guide, family 19h: latencies 1 and 3, six macro-operations a cycle, a taken
# branch a cycle; zeroing waits for nobody; a compare and its jump are one.
@pytest.mark.parametrize(
    ("text", "cycles"),
    [
        ("add rax, rbx; " * 10, 10), ("imul rax, rbx; " * 5, 15), ("nop; " * 4, 1),
        ("mov rax, [rsi]; mov rsi, rax; " * 2, 8), ("nop; " * 22, 23 / 6),
        ("xor eax, eax; imul rax, rbx; " * 4, 4), ("mulps xmm0, xmm1; " * 4, 12),
    ],
)  # fmt: skip
def test_limits(text: str, cycles: float) -> None:
    assert loop(text) == pytest.approx(cycles, rel=0.13)


def test_a_chain_counts_once_where_the_block_does_not_return() -> None:
    """MOV RAX, [RSI] four times over: each waits 4 cycles, and nobody waits for the last."""
    code = bytes.fromhex("488b36") * 4
    assert block_cycles("zen3", code + b"\xc3", [3] * 4 + [1]) == pytest.approx(16, abs=1)


def test_the_child_measures_each_loop() -> None:
    found = measure([b"\x90", b"\x48\x0f\xaf\xc0" * 20])
    assert len(found) == 2
    assert min(found) > 0
    assert section.measured([b"\x90"] * 3).__len__() == 3


def test_a_row_for_each_kind_and_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a truth that is the prediction, the errors are nothing."""
    monkeypatch.setattr(section, "host_table", lambda: "haswell")
    monkeypatch.setattr(section, "by_llvm", lambda *_: None)
    monkeypatch.setattr(
        section, "measured", lambda codes: [section.predicted("haswell", c) for c in codes]
    )
    rows = section.measure()
    assert [row.error for row in rows[:4]] == [0] * 4
    assert [row.predicted for row in rows[4:]] == [0, 0]
    assert "96 blocks, held out" in rows[4].what


def test_every_table_is_held_against_llvm(monkeypatch: pytest.MonkeyPatch) -> None:
    """With llvm-mca twice as slow as we are, every table is half of it away."""
    monkeypatch.setattr(section, "host_table", lambda: "zen3")
    codes = [section.assembled(block) for block in blocks()]
    monkeypatch.setattr(
        section, "by_llvm", lambda table, _: [2 * section.predicted(table, c) for c in codes]
    )
    monkeypatch.setattr(
        section, "measured", lambda _: [section.predicted("zen3", c) for c in codes]
    )
    rows = section.measure()[6:]
    assert {row.model for row in rows} == set(CPUS)
    assert [row.predicted for row in rows] == pytest.approx([50] * len(rows))


def test_the_committed_page_reaches_what_was_asked_for() -> None:
    """At most 20 % on blocks that are held out."""
    page = (Path(__file__).parents[3] / "docs" / "VALIDATION-BLOCKS.md").read_text()
    found = re.search(r"mean absolute error of 96 blocks, held out \(%\) \| ([\d.]+) ", page)
    assert found
    assert float(found[1]) <= 20


def test_a_host_without_a_table_has_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(section, "host_table", lambda: None)
    assert section.measure() == []
