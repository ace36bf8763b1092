"""`ring1 bench validate`, and its committed table."""

import json
import re
from pathlib import Path

import pytest

from hwmodel.arch.model import CpuModel
from vmm.cli.main import main
from vmm.cli.validate import PARTS, document, summary, validate
from vmm.cli.validation.figure import Figure
from vmm.cli.validation.roundtrips import published

ROOT = Path(__file__).parents[3]
COMMITTED = (ROOT / "docs" / "VALIDATION.md").read_text()


def section(text: str, part: list[Figure]) -> str:
    """The part of the page that a section's figures make."""
    begin = text.index(f"## {part[0].section}\n")
    end = text.find("\n## ", begin + 1)
    return text[begin : end if end >= 0 else None].strip()


@pytest.mark.parametrize(
    "name", ["nano", "amortise", "roundtrips", pytest.param("walks", marks=pytest.mark.slow)]
)
def test_the_committed_table_is_what_the_model_predicts(name: str) -> None:
    """The same on every host, so it can be compared to the letter."""
    figures = PARTS[name]()
    assert section(document(figures), figures) == section(COMMITTED, figures)


def test_errors_and_verdicts() -> None:
    def one(predicted: float, published: float | None, *, in_file: bool = False) -> Figure:
        return Figure("s", "m", "w", "cycles", predicted, published, "a book", in_file)

    assert one(110, 100).error == pytest.approx(0.1)
    assert one(125, 100).verdict == "yes"
    assert one(74, 100).verdict == "no"
    assert one(100, 100, in_file=True).verdict == "in file"
    assert one(100, None).verdict == "no figure"
    assert summary([one(110, 100), one(100, 100, in_file=True)]).startswith("1 of 1 ")
    assert summary([one(100, None)]) == "No row validates anything."


def test_what_stands_in_a_file_is_not_said_to_validate() -> None:
    """A published number that is literally in the model's costs must be marked."""
    for one in published():
        costs = CpuModel.load(one.model).costs
        if not one.row and one.cycles == costs.round_trip:
            assert one.in_file, one


def test_json_and_bad_words(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["bench", "validate", "--only", "nonsense"]) == 64
    assert re.fullmatch(r"ring1: .*nonsense.*\n", capsys.readouterr().err)
    assert main(["bench", "validate", "--only", "amortise", "--write", str(tmp_path / "a/b")]) == 64
    capsys.readouterr()
    assert validate(["--only", "amortise", "--json", "--write", str(tmp_path / "t.md")]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["model"] for row in rows} >= {"nehalem", "zen2"}
    assert "| nehalem |" in (tmp_path / "t.md").read_text()
