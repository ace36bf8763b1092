"""Descriptors, far transfers and event delivery in C against the manual's pseudo-code."""

import shutil
import subprocess
from importlib import util
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CEXT = HERE.parents[1] / "cext"


def package(name: str) -> Path:
    spec = util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def library(name: str) -> str:
    return str(next((package(name) / "lib").glob(f"lib{name}.so*")))


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_manual_agrees(tmp_path: Path) -> None:
    sources = [p for p in sorted(CEXT.glob("*.c")) if p.name != "native.csrc.c"]
    includes = [
        f"-I{CEXT}",
        *(f"-isystem{package(n) / 'include'}" for n in ("unicorn", "capstone")),
    ]
    program = tmp_path / "deliver_check"
    command = ["cc", "-std=gnu11", "-fno-strict-aliasing", *includes, "-o", str(program)]
    own = sorted(HERE.glob("deliver_*.c"))
    subprocess.run([*command, *map(str, [*sources, *own]), "-ldl", "-lpthread"], check=True)
    run = subprocess.run(
        [str(program), library("unicorn"), library("capstone")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
