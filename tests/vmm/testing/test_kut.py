"""`ring1 kut` on a folder made here: the configuration file, verdicts, JUnit, a baseline."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from hwmodel.arch.model import CpuModel
from vmm.cli.kut import kut
from vmm.errors import UsageError
from vmm.testing.kut.config import read_config
from vmm.testing.kut.processor import Processor, processor_for

CONFIG = """
[passes]
file = visible.flat
smp = 2
qemu_params = -m 64 -append 'a b'
timeout = 20

[x2]
file = triple.flat
test_args = "one `date +%s`"
timeout = 5

[old]
file = visible.flat
arch = i386

[gone]
file = gone.flat
extra_params = \"\"\"-m 32
 -cpu max,+pks\"\"\"
"""


@pytest.fixture
def folder(images: Path, tmp_path: Path) -> Path:
    (tmp_path / "unittests.cfg").write_text(CONFIG)
    for name in ("visible", "triple"):
        shutil.copy(images / f"{name}.elf", tmp_path / f"{name}.flat")
    return tmp_path


def test_the_configuration_file(folder: Path) -> None:
    passes, triple, old, gone = read_config(folder)
    assert (passes.cpus, passes.memory, passes.arguments, passes.timeout) == (2, "64M", "a b", 20)
    assert triple.arguments == "one 1767225600"  # the clock that a VM starts with
    assert old.why_not == "a 32-bit build"
    assert gone.why_not == "gone.flat is not there"
    assert (gone.memory, gone.processor) == ("32M", Processor("sapphire-rapids"))


def test_what_is_not_run_unless_it_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "unittests.cfg").write_text(
        "[manual]\nfile = visible.flat\ngroups = x nodefault\n"
        "[iommu]\nfile = visible.flat\nqemu_params = -M q35 -device intel-iommu,eim=off\n"
    )
    assert kut(str(folder)) == 0
    assert "2 SKIP" in capsys.readouterr().out
    assert kut(str(folder), pattern="manual") == 0
    assert "1 PASS" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wanted", "model", "lost", "bits"),
    [
        ("qemu64,+x2apic,+tsc-deadline", "cascade-lake", set(), 46),
        ("qemu64,-x2apic,+tsc-deadline", "cascade-lake", {"x2apic"}, 46),
        ("max,-pcid,+invpcid", "cascade-lake", {"pcid", "invpcid"}, 46),
        ("Opteron_G1,vendor=AuthenticAMD", "zen2", set(), 48),
        ("IvyBridge,phys-bits=36,host-phys-bits=off", "cascade-lake", set(), 36),
        ("max,-sse4.2", "cascade-lake", {"sse4_2"}, 46),
    ],
)
def test_the_processor_asked_for(
    wanted: str, model: str, lost: set[str], bits: int, tmp_path: Path
) -> None:
    chosen = processor_for("any", wanted)
    made, plain = CpuModel.load(chosen.file(tmp_path)), CpuModel.load(model)
    assert chosen.model == model
    assert (set(plain.features - made.features), made.physical_bits) == (lost, bits)
    assert not made.features - plain.features


def test_verdicts_junit_and_baseline(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    baseline, junit = folder / "base.json", folder / "j.xml"
    options: Any = {"workers": 1, "scale": 4.0, "scheduler": None, "pattern": "*"}
    assert kut(str(folder), **options, junit=str(junit), baseline=str(baseline), write=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == ["passes", "PASS"]
    assert int(lines[1].split()[2]) > 5
    assert lines[2].split()[:2] == ["x2", "FAIL"]
    assert "triple_fault" in lines[2]
    assert lines[3].split()[:2] == ["old", "SKIP"]
    assert lines[-1] == "1 PASS, 1 FAIL, 2 SKIP"
    assert 'failures="1"' in junit.read_text()
    assert kut(str(folder), **options, junit=None, baseline=str(baseline), write=False) == 0
    baseline.write_text(baseline.read_text().replace('"FAIL"', '"PASS"'))
    assert kut(str(folder), **options, junit=None, baseline=str(baseline), write=False) == 1
    assert "worse: x2: FAIL" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folder": "/nowhere"}, "/nowhere is not a folder"),
        ({"pattern": "zzz"}, "matches no test"),
        ({"workers": 0}, "-n 0 is no number of processes"),
        ({"write": True}, "--write needs --baseline"),
        ({"baseline": "/nowhere/b"}, "cannot be read"),
    ],
)
def test_bad_input(folder: Path, change: dict[str, object], message: str) -> None:
    options: dict[str, object] = {
        "folder": str(folder), "pattern": "gone", "workers": 1, "junit": None, "baseline": None,
        "write": False, "scale": 1.0, "scheduler": None,
    }  # fmt: skip
    with pytest.raises(UsageError, match=message):
        kut(**options | change)  # type: ignore[arg-type]
