"""What events cost: every model's file has every figure, with a source; nonsense is one line."""

from pathlib import Path

import pytest

from hwmodel.arch.exits import ExitReason
from hwmodel.arch.model import MODELS, CpuModel, names
from hwmodel.arch.sourced import ModelError
from tests.images import elf64
from vmm import VM
from vmm.config import Config
from vmm.errors import UsageError

TEXT = (MODELS / "cascade-lake.toml").read_text()


def test_the_published_machines_are_there() -> None:
    assert set(names()) >= {
        "pentium-4-672", "core-2", "nehalem", "westmere", "sandy-bridge", "haswell", "skylake-x",
        "cascade-lake", "ice-lake-server", "sapphire-rapids", "zen2", "zen3",
    }  # fmt: skip


@pytest.mark.parametrize("name", names())
def test_costs_are_plausible(name: str) -> None:
    costs, walks = CpuModel.load(name).costs, CpuModel.load(name).costs.references
    assert 500 < costs.round_trip < 5000
    assert costs.handler(ExitReason.CPUID) < 10_000
    assert walks.level1 <= walks.level2 <= walks.level3 <= walks.memory


def test_a_processor_of_another_family_says_so() -> None:
    """Zen 2's signature is 830F10h: extended families and models."""
    from hwmodel.arch.cpuid import signature

    assert signature(CpuModel.load("zen2")) == 0x830F10
    assert signature(CpuModel.load("zen3")) == 0xA00F11
    assert signature(CpuModel.load("pentium-4-672")) == 0xF4A
    assert signature(CpuModel.load("haswell")) == 0x306F2


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("vm_exit = {", "vm_exits = {", "costs.vm_exit is missing"),
        ("vm_exit = { value = 392", "vm_exit = { value = -1", "is no number of cycles"),
        ("tlb_level2_hit = { value = 9, source", "tlb_level2_hit = { value = 9, where", "source"),
        ("EPT_VIOLATION = {", "EPT_VIOLATIONS = {", "is no exit reason"),
        ("[handlers]", "[handler]", "handlers is missing"),
        ("memory = { value = 280", 'memory = { value = "280"', "must be a int"),
    ],
)  # fmt: skip
def test_nonsense_is_one_line_with_its_place(
    old: str, new: str, complaint: str, tmp_path: Path
) -> None:
    assert old in TEXT
    bad = tmp_path / "bad.toml"
    bad.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(ModelError, match=complaint) as refused:
        CpuModel.load("bad", tmp_path)
    assert str(refused.value).startswith("bad.toml:")
    assert "\n" not in str(refused.value)
    with pytest.raises(UsageError, match=complaint) as shown:
        VM(elf64("hlt"), cpu_model=str(bad))
    assert "\n" not in str(shown.value)


def test_an_unknown_model_is_one_line() -> None:
    with pytest.raises(UsageError, match="--cpu-model 'z80' is not known; use one of"):
        Config.of(cpu_model="z80")
