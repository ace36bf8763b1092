"""Configuration: what is accepted, what is refused, and how."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.config import Config, Mmu, Module, Stats, Technique, parse_size, size_text
from vmm.errors import NotBuiltError, UsageError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1M", 1 << 20), ("64m", 64 << 20), ("1G", 1 << 30), ("1.5G", 3 << 29),
        ("2048K", 2 << 20), ("64MiB", 64 << 20), ("64MB", 64 << 20), ("1048576", 1 << 20),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert Config.of(memory=text).memory == size


@pytest.mark.parametrize(
    "text",
    ["", "M", "x", "64Q", "-1M", "1023K", "0", "1e9", "nan", ".", "1_0M", "513G", "1048577"],
)
def test_bad_sizes_name_the_value(text: str) -> None:
    with pytest.raises(UsageError, match="--memory"):
        Config.of(memory=text)


@given(st.integers(256, 1 << 27))
def test_a_size_survives_being_written(pages: int) -> None:
    size = pages * 4096
    assert parse_size(size_text(size).removesuffix(" bytes")) == size


@pytest.mark.held_by("ept", why="looks at the defaults")
def test_defaults_are_those_of_the_design() -> None:
    config = Config.of()
    assert (config.technique, config.memory, config.cpus) == (Technique.VTX, 256 << 20, 1)
    assert (config.reboot, config.image, config.stats) == (True, None, Stats.TABLE)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"cpus": 256}, "--cpus 256"),
        ({"cpus": "two"}, "two"),
        ({"cpus": 1.5}, "--cpus 1.5"),
        ({"max_instructions": -1}, "--max-instructions"),
        ({"timeout": "nan"}, "--timeout"),
        ({"timeout": "soon"}, "soon"),
        ({"gdb": "1:2:99999"}, "--gdb"),
        ({"wait": True}, "--gdb PORT"),
        ({"gdb": "1234,monitor=maybe"}, "monitor=off"),
        ({"gdb": 1234, "trace": "x.perfetto"}, "give one of them"),
        ({"cmdline": "a\0b"}, "zero byte"),
        ({"nonsense": 1}, "nonsense"),
        ({"technique": "vmx"}, "vtx, trap, pv, svm"),
        ({"technique": "trap", "mmu": "ept"}, "--mmu ept needs VT-x"),
        ({"technique": "pv", "mmu": "shadow"}, "--mmu shadow"),
        ({"cpu_model": "z80"}, "cascade-lake, core-2"),
    ],
)
def test_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        Config.of(**options)
    assert named in str(caught.value)
    assert not isinstance(caught.value, NotBuiltError)


@pytest.mark.parametrize(
    "options",
    [
        {"technique": "svm"},
    ],
)  # fmt: skip
def test_not_built_yet(options: dict[str, Any]) -> None:
    with pytest.raises(NotBuiltError, match="not built yet"):
        Config.of(**options)


def test_a_technique_without_vtx_has_shadow_tables() -> None:
    assert Config.of(technique="trap").mmu is Mmu.SHADOW
    assert Config.of(technique="trap", mmu="shadow").mmu is Mmu.SHADOW
    assert Config.of(technique="vtx").mmu is Mmu.EPT
    with pytest.raises(UsageError, match="leave it out"):
        Config(technique=Technique.TRAP)


def test_typed_values_are_checked_as_well() -> None:
    with pytest.raises(UsageError, match="--memory"):
        Config(memory=12345)


def test_statistics_words() -> None:
    assert Config.of(stats="json").stats is Stats.JSON
    config = Config.of(stats="out/json")
    assert (config.stats, config.stats_file) == (Stats.FILE, Path("out/json"))


def test_modules(tmp_path: Path) -> None:
    spaced = tmp_path / "a b"
    spaced.touch()
    assert Config.of(initrds=["f one two", str(spaced)]).initrds == (
        Module(Path("f"), "one two"),
        Module(spaced),
    )


def test_errors_are_one_line() -> None:
    assert str(UsageError("a\nb  c")) == "a b c"
