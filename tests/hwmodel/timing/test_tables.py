"""The tables of instruction costs: what llvm-mca and the overlay say, and nothing since."""

import re
import shutil
from pathlib import Path

import pytest

from hwmodel.arch.model import CpuModel, names
from hwmodel.arch.sourced import ModelError
from hwmodel.cpu.pace import Pace, cost_tables
from hwmodel.cpu.pipelines import table_of
from hwmodel.timing.tables import overlay
from hwmodel.timing.tables.__main__ import PATH, made
from hwmodel.timing.tables.mca import CPUS, version
from hwmodel.timing.tables.price import uses_of


def test_the_committed_table_is_what_is_made() -> None:
    if not shutil.which("llvm-mca"):
        pytest.skip("llvm-mca is not here (apt-get install llvm)")
    committed = PATH.read_text()
    made_by = re.search(r"llvm-mca ([\d.]+)", committed)
    assert made_by
    if made_by[1] != version():
        pytest.skip(f"the table is of llvm-mca {made_by[1]}, this is {version()}")
    assert committed == made(), "cext/cost_tables.inc is not what `make costs` makes"


def test_every_model_has_a_table() -> None:
    assert set(cost_tables()) == set(CPUS)
    for name in names():
        assert table_of(CpuModel.load(name)) in CPUS


def test_uses_are_taken_apart_into_groups() -> None:
    """ADD to memory on Skylake: an ALU, two accesses of which one may go to port 7, the data."""
    ports = [f"SKXPort{n}" for n in range(8)]
    pressure = [0.25, 0.25, 0.5 + 1 / 3, 0.5 + 1 / 3, 1.0, 0.25, 0.25, 1 / 3]
    assert set(uses_of(ports, pressure)) == {
        (0b0110_0011, 64), (0b1000_1100, 64), (0b0000_1100, 64), (0b0001_0000, 64)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("latency = 100", "latency = -1", r"latency is negative: -1"),
        ("uops = 20\n", "", r"rows\[0\]\.uops is missing"),
        ('source = "published', 'sauce = "published', "source is missing"),
        ("[repeat]", "[repeats]", "repeat is missing"),
        ("width = { value = 4,", "width = { value = four,", "not TOML"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_overlay_is_one_line(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    text = overlay.FILE.read_text()
    assert old in text
    (tmp_path / "overlay.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(ModelError, match=said) as caught:
        overlay.read(tmp_path / "overlay.toml")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("overlay.toml:")


def test_an_unknown_table_is_refused() -> None:
    from hwmodel.cpu.unicorn import ffi, lib

    memory = ffi.new("uint8_t[]", 1 << 20)
    engine = ffi.gc(lib.engine_create(memory, 1 << 20), lib.engine_destroy)
    with pytest.raises(ValueError, match="no cost table 'z80'; there are: cascade-lake"):
        Pace(engine).set_costs("z80")
