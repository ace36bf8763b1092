"""The same ledger, byte for byte: again, elsewhere in memory, hashed or interpreted otherwise."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.images import OFF, elf64
from tests.vmm.test_event_costs import MIXED

ROOT = Path(__file__).parents[2]
_WORDS = (
    "run", "--memory", "4M", "--timing", "cycle", "--cpu-model", "pentium-4-672", "--stats", "json",
)  # fmt: skip


@pytest.fixture(scope="module", name="image")
def _image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ledger") / "mixed.elf"
    path.write_bytes(elf64(MIXED + OFF))
    return path


def ledger(
    image: Path, *before: str, seed: str = "0", python: str = sys.executable, **environment: str
) -> str:
    """The statistics of a run in a process of its own, without its wall time."""
    done = subprocess.run(
        [*before, python, "-m", "vmm", *_WORDS, str(image)],
        capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stderr)
    del seen["wall_seconds"]
    assert sum(seen["ledger"].values()) == seen["cycles"]
    assert seen["exit_cycles"]["CPUID"] > 0
    return json.dumps(seen)


@pytest.fixture(scope="module", name="expected")
def _expected(image: Path) -> str:
    return ledger(image)


def test_on_repeat(image: Path, expected: str) -> None:
    assert ledger(image) == expected


def test_with_and_without_address_randomisation(image: Path, expected: str) -> None:
    """Every process has other addresses; with setarch -R they are those of no other."""
    setarch = shutil.which("setarch")
    if setarch is None:
        pytest.skip("setarch is not installed: apt-get install util-linux")
    tried = subprocess.run([setarch, platform.machine(), "-R", "true"], check=False)
    if tried.returncode:
        pytest.skip("this host does not let a process choose")
    assert ledger(image, setarch, platform.machine(), "-R") == expected


@pytest.mark.parametrize("seed", ["1", "4242"])
def test_with_another_hash_seed(image: Path, expected: str, seed: str) -> None:
    assert ledger(image, seed=seed) == expected


def _pythons() -> list[str]:
    """Other interpreters from 3.11 on, of whatever build."""
    named = [f"python3.{minor}" for minor in range(11, 20)]
    folders = [*os.environ["PATH"].split(os.pathsep), "/usr/bin", "/usr/local/bin"]
    found = {str(Path(folder, name)) for folder in folders for name in named}
    return sorted(path for path in found if Path(path).is_file())


_ABLE = (
    "import platform, cffi, typer; from hwmodel import _native; print(platform.python_version())"
)


def test_with_another_python(image: Path, expected: str) -> None:
    path = f"{ROOT}{os.pathsep}{Path(pytest.__file__).parents[1]}"
    for python in _pythons():
        able = subprocess.run(
            [python, "-c", _ABLE], capture_output=True, text=True, check=False,
            env=os.environ | {"PYTHONPATH": path},
        )  # fmt: skip
        if able.returncode == 0 and able.stdout.strip() != platform.python_version():
            assert ledger(image, python=python, PYTHONPATH=path) == expected
            return
    pytest.skip("no other Python from 3.11 on can import the packages")


def test_the_table_shows_where_the_cycles_went(image: Path) -> None:
    words = [word for word in _WORDS if word not in ("--stats", "json")]
    done = subprocess.run(
        [sys.executable, "-m", "vmm", *words, str(image)],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
    )  # fmt: skip
    assert "Cycles" in done.stderr
    for heading in ("guest", "walk", "exit", "entry", "hypervisor", "injection"):
        assert heading in done.stderr
    assert "steal" not in done.stderr, "one vCPU: nothing is kept from it"
