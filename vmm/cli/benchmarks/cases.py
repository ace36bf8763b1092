"""Instruction-level tests: how many a second, how many under pytest, what a reset costs.

A test is what a user writes: reset, load ten instructions whose assembly is cached, set a
register, run to HLT, compare a register. Pytest's share is the difference of two runs of it in
processes of their own, so that start-up and collection of an empty file fall out.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from vmm.cli.benchmarks.row import Bound, Row
from vmm.errors import InternalError

if TYPE_CHECKING:
    from vmm.testing.guest import Guest

TEN: Final = (
    "mov rax, 1; mov rbx, 2; add rax, rdi; imul rax, rbx; xor rcx, rcx; "
    "lea rdx, [rax + 4]; shl rdx, 3; push rdx; pop rsi; not rsi"
)
"""Ten instructions; RSI ends as ~((2 * (1 + RDI) + 4) << 3)."""
DIRTY: Final = 100
"""Pages written before a reset."""
_WRITE_PAGES: Final = """
    mov rdi, 0x400000
    mov ecx, {count}
again:
    mov [rdi], cl
    add rdi, 0x1000
    dec ecx
    jnz again
"""
_TEST_LIMIT_US: Final = 500.0  # 2,000 a second
_RESET_LIMIT_US: Final = 100.0
_BATCH: Final = 200
_FEW, _MANY = 10, 1510
_MASK: Final = (1 << 64) - 1
_FILE: Final = """
import pytest
from vmm.cli.benchmarks.cases import TEN, expected

@pytest.mark.parametrize("value", range({count}))
def test_ten(vm, value):
    vm.asm(TEN)
    vm.regs.rdi = value
    vm.run()
    assert vm.regs.rsi == expected(value)
"""


def expected(value: int) -> int:
    """Return RSI after TEN with `value` in RDI."""
    return ~((2 * (1 + value) + 4) << 3) & _MASK


def measure(runs: int, percent: int) -> list[Row]:
    """Return the three rows; each figure is CPU time of this host."""
    from vmm.testing.guest import Guest

    batch = max(10, _BATCH * percent // 100)
    with Guest(memory="64M") as guest:
        _test(guest, 1)  # assembles, translates
        alone = _each(lambda: _test(guest, 7), batch, max(runs, 5))
        reset = _reset(guest, batch // 2)
    pytests = _under_pytest(runs, percent)
    return [
        Row("tests", "reset, load ten instructions, run, compare", "us", alone,
            bounds=(Bound("us", alone, _TEST_LIMIT_US),), note=_rate(alone)),
        Row("tests", "the same under pytest, each", "us", pytests, note=_rate(pytests)),
        Row("tests", f"reset of 64 MiB, {DIRTY} pages dirty", "us", reset,
            bounds=(Bound("us", reset, _RESET_LIMIT_US),)),
    ]  # fmt: skip


def _rate(microseconds: float) -> str:
    return f"{1e6 / microseconds:,.0f} a second on one core"


def _test(guest: "Guest", value: int) -> None:
    guest.reset()
    guest.asm(TEN)
    guest.regs.rdi = value
    guest.run()
    assert guest.regs.rsi == expected(value)


def _each(test: Callable[[], None], batch: int, runs: int) -> float:
    """Microseconds of one, median of `runs` batches."""
    figures = []
    for _ in range(runs):
        began = time.process_time()
        for _ in range(batch):
            test()
        figures.append((time.process_time() - began) / batch * 1e6)
    return median(figures)


def _reset(guest: "Guest", count: int) -> float:
    """Microseconds of a reset behind a guest that wrote DIRTY pages; it must undo them."""
    figures = []
    for _ in range(count):
        guest.asm(_WRITE_PAGES.format(count=DIRTY))
        guest.run()
        began = time.process_time_ns()
        guest.reset()
        figures.append((time.process_time_ns() - began) / 1e3)
        assert guest.memory.read(0x400000 + (DIRTY - 1) * 0x1000, 1) == b"\0"
    return median(figures)


def _under_pytest(runs: int, percent: int) -> float:
    """Microseconds of CPU time that pytest takes for one more such test, child's and all."""
    many = _FEW + max(40, (_MANY - _FEW) * percent // 100)
    with TemporaryDirectory(prefix="ring1-") as folder:
        pairs = [
            _pytest(Path(folder), many) - _pytest(Path(folder), _FEW) for _ in range(min(runs, 3))
        ]
    return median(pairs) / (many - _FEW) * 1e6


def _pytest(folder: Path, count: int) -> float:
    """CPU seconds of a pytest process that runs `count` tests."""
    (folder / "test_rate.py").write_text(_FILE.format(count=count))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "vmm.testing.plugin", "--rootdir"]
    before = os.times()
    done = subprocess.run(
        [*command, str(folder), str(folder)], cwd=folder, capture_output=True, text=True,
        check=False, env=os.environ | {"PYTEST_ADDOPTS": ""},
    )  # fmt: skip
    after = os.times()
    if done.returncode:
        last = (done.stdout.strip() or done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise InternalError(f"pytest could not measure: {last}")
    user = after.children_user - before.children_user
    return user + after.children_system - before.children_system
