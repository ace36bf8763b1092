"""What going back costs: a Linux that has come to its shell under a debugger."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from vmm.cli.benchmarks.row import Bound, Row

if TYPE_CHECKING:
    from vmm.debug.session import Session

_MEMORY: Final = 256 << 20
_STRETCH: Final = 20_000_000  # steps between two looks at the console
_LAST: Final = 6_000_000_000  # steps: a guest that is not at its shell by then never will be
_PROMPT: Final = b"ring1# "
_BACK: Final = 100_000_000  # instructions
_STEP_S, _CONTINUE_S, _TIMES = 2.0, 10.0, 2.0


def measure(runs: int) -> list[Row]:
    """Return the rows; one that says why where no Linux can be had."""
    from vmm.cli.demo import initramfs
    from vmm.cli.kernels import Flavour, fetch_kernel
    from vmm.cli.packages import PackageError

    try:
        kernel = fetch_kernel(Flavour.CLOUD)
        archive = initramfs(kernel)
    except PackageError as error:
        return [Row("travel", "no Linux", "", 0.0, note=str(error))]
    with tempfile.NamedTemporaryFile(prefix="ring1-", suffix=".cpio") as file:
        file.write(archive)
        file.flush()
        return _on(kernel.image, file.name, runs)


def _on(image: Path, initrd: str, runs: int) -> list[Row]:
    from vmm import VM
    from vmm.debug.session import Session

    memory = str(_MEMORY)
    with VM(image, cmdline="console=ttyS0", initrds=[initrd], memory=memory) as vm:
        session = Session(vm)
        _boot(session)
        kept = session.checkpoints
        note = f"{session.instructions:,} instructions, {len(kept)} checkpoints"
        rows = [
            _row("checkpoints", "of its memory", kept.size / _MEMORY, _TIMES, note),
            _row("reverse step", "s", median(_steps(session, runs)), _STEP_S, "at the shell"),
        ]
        seconds, distance = _continue_back(session)
        note = f"{distance:,} steps back, breakpoints on an exit and on code"
        return [*rows, _row("reverse-continue", "s", seconds, _CONTINUE_S, note)]


def _boot(session: "Session") -> None:
    from vmm.debug.driver import Goal

    vm = session.vm
    while _PROMPT not in vm.console.text() and session.now.steps < _LAST and not vm.is_stopped():
        session.resume(Goal(steps=session.now.steps + _STRETCH))


def _steps(session: "Session", runs: int) -> list[float]:
    return [_seconds(session.reverse_step) for _ in range(runs)]


def _continue_back(session: "Session") -> tuple[float, int]:
    """Go back to the last exit that is at least so far back; seconds, and how far it was."""
    here = session.now.steps
    session.break_on_exit(f"step < {max(1, here - _BACK)}")
    session.break_at(1)  # where nothing ever runs
    seconds = _seconds(session.reverse_resume)
    return seconds, here - session.now.steps


def _seconds(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def _row(name: str, unit: str, value: float, limit: float, note: str) -> Row:
    return Row("travel", name, unit, value, bounds=(Bound(unit, value, limit),), note=note)
