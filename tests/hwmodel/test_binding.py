"""A library that the engine was not proved on is refused in one line."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIND = """
import sys
from hwmodel import _native
lib, ffi = _native.lib, _native.ffi
print(lib.bind_libraries(sys.argv[1].encode(), sys.argv[2].encode()))
print(ffi.string(lib.binding_error()).decode())
"""


def bind(unicorn: str, capstone: str = "nothing.so") -> list[str]:
    command = [sys.executable, "-c", BIND, unicorn, capstone]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    return done.stdout.splitlines()


def built(folder: Path, source: str) -> str:
    (folder / "fake.c").write_text(source)
    library = folder / "fake.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, folder / "fake.c"], check=True)
    return str(library)


def test_a_path_that_is_none() -> None:
    code, *lines = bind("no-such-folder/libunicorn.so.2")
    assert code == "-1"
    assert len(lines) == 1
    assert "no-such-folder/libunicorn.so.2" in lines[0]


def test_a_library_that_is_another(tmp_path: Path) -> None:
    code, *lines = bind(built(tmp_path, "int answer(void) { return 42; }"))
    assert code == "-1"
    assert len(lines) == 1
    assert "fake.so has no symbol uc_" in lines[0]
    assert "pip" in lines[0]


def test_a_wrong_version(tmp_path: Path) -> None:
    """Every symbol is there, and the version is 2.0.1."""
    header = (ROOT / "cext/binding.h").read_text()
    known = set(re.findall(r"\b(?:uc|cs)_[a-z_]+", header))
    internal = (
        "tlb_flush_x86_64 tlb_flush_page_x86_64 tb_invalidate_phys_range_x86_64 "
        "raise_exception_err_ra_x86_64 helper_cc_compute_all_x86_64"
    ).split()
    names = sorted({*known, *internal} - {"uc_version"})
    rows = [f"int {name}(void) {{ return 0; }}" for name in names]
    rows.append("unsigned uc_version(void *a, void *b) { return 2 << 24 | 1 << 8; }")
    code, *lines = bind(built(tmp_path, "\n".join(rows)))
    assert code == "-1"
    assert lines == ["unicorn 2.0.1 was found, but 2.1.4 is needed: pip install unicorn==2.1.4"]


def test_the_import_says_so(tmp_path: Path) -> None:
    package = tmp_path / "unicorn"
    (package / "lib").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "lib" / "libunicorn.so.2").write_text("not a library")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", "import hwmodel.cpu.unicorn"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode
    last = done.stderr.splitlines()[-1]
    assert "EngineRefusedError: libunicorn cannot be opened" in last
    assert str(package) in last
