"""TLBs and walk caches of a CPU model: what its file must say, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from hwmodel.arch.model import MODELS, CpuModel
from hwmodel.arch.sourced import ModelError
from hwmodel.arch.translation import Geometry, Kind, PageSize


def test_cascade_lakes_second_level() -> None:
    """InstLatX64's dumps: 1536 entries in 12 ways for 4K and 2M, 16 in 4 for 1G."""
    shared = [tlb for tlb in CpuModel.load().translation.tlbs if tlb.level == 2]
    assert [(tlb.sizes, tlb.geometry) for tlb in shared] == [
        (PageSize.SMALL | PageSize.LARGE, Geometry(128, 12)),
        (PageSize.HUGE, Geometry(4, 4)),
    ]
    assert {tlb.kinds for tlb in shared} == {Kind.DATA | Kind.CODE}


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("entries = 1536", "entries = 1500", "make 125 sets, no power of two"),
        ("entries = 1536", "entries = 1501", "no multiple of ways 12"),
        ('kind = "shared"', 'kind = "both"', "tlb[5].kind 'both' must be one of"),
        ('sizes = ["4K", "2M"]', 'sizes = ["4M"]', "must name some of 4K, 2M, 1G"),
        ('sizes = ["4K", "2M"]', 'sizes = ["2M"]', "has no level 2 for DATA and 4K"),
        ("pde = { entries = 32", "pde = { entries = 0", "pde.entries"),
        ('level = 2\nkind = "s', 'level = 3\nkind = "s', "level 3 must be 1 or 2"),
    ],
)
def test_nonsense_is_refused_by_name(old: str, new: str, complaint: str, tmp_path: Path) -> None:
    text = (MODELS / "cascade-lake.toml").read_text()
    assert old in text
    (tmp_path / "odd.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(ModelError) as refused:
        CpuModel.load("odd", tmp_path)
    assert complaint in str(refused.value)
    line = text[: text.index(old)].count("\n") + 1
    file, number, _ = str(refused.value).split(":", 2)
    assert file == "odd.toml"
    assert int(number) == line or "has no level" in complaint


def test_five_levels_need_57_bits() -> None:
    model: Any = CpuModel.load("sapphire-rapids")
    assert model.linear_bits == 57
    assert {"la57", "pks"} <= model.features
