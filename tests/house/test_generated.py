"""Generated files are what their generator would write now."""

from pathlib import Path

from hwmodel.arch import generate
from vmm.pv import generate as dialects


def test_nothing_is_stale(root: Path) -> None:
    assert generate.stale(root) + dialects.stale(root) == [], "run `make abi`"


def test_a_changed_or_missing_file_is_stale(tmp_path: Path) -> None:
    assert generate.stale(tmp_path) == list(generate.HEADERS)
    for name, text in generate.HEADERS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text())
    assert generate.stale(tmp_path) == []
    (tmp_path / "cext/vmcs_fields.h").write_text("edited")
    assert generate.stale(tmp_path) == ["cext/vmcs_fields.h"]


def test_each_says_how_it_is_made() -> None:
    for module in (generate, dialects):
        for text in module.HEADERS.values():
            assert module.COMMAND in text().splitlines()[0]
