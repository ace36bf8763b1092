"""The committed pages under docs/experiments are what the experiments find now."""

from pathlib import Path

import pytest

from vmm.experiments.registry import EXPERIMENTS, run
from vmm.experiments.report import Claim, Report

PAGES = Path(__file__).resolve().parents[3] / "docs/experiments"
SLOW: frozenset[str] = frozenset({"pressure", "locks"})
"""Those that take more than a few seconds."""
NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in EXPERIMENTS
]


@pytest.mark.parametrize("name", NAMES)
def test_the_page_is_what_is_found(name: str) -> None:
    report = run(name)
    assert [claim.text for claim in report.claims if not claim.holds] == []
    assert report.claims
    assert (PAGES / f"{name}.md").read_text() == report.markdown(), f"ring1 lab {name} --write"


def test_every_page_has_its_experiment() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} == set(EXPERIMENTS)


def test_a_claim_that_fails_is_shown() -> None:
    report = Report("x", "X", "Words.", ("n",), ((1,),), (Claim("true", holds=False),))
    assert not report.holds()
    assert "**fails**: true" in report.markdown()
