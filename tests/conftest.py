"""The guest kernels, built once a session; and `--hold`: every VM of the tests held another way.

What a guest sees is the same however it is held, so `pytest --hold shadow` and `--hold trap` run
the whole suite (`make held`). A test that judges one way of holding says so and why, by the marker
`held_by("ept", why="names EPT violations")`; it is skipped under the others with those words.
"""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vmm.config import Config

pytest_plugins = ["vmm.testing.plugin"]  # where ring1 itself is not installed
ROOT = Path(__file__).resolve().parents[1]
HOLDS: dict[str, dict[str, str]] = {
    "ept": {},
    "shadow": {"mmu": "shadow"},
    "trap": {"technique": "trap"},
}


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Begun in the background of a script: the programs that the tests interrupt would not hear it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # or under nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--hold`, for a run of tests that do not say how their guests are held."""
    parser.addoption(
        "--hold", choices=sorted(HOLDS), default="ept", help="how tests hold guests [ept]"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the chosen way of holding guests does not have."""
    chosen = config.getoption("--hold")
    for item in items:
        for mark in item.iter_markers("held_by"):
            if chosen not in mark.args:
                reason = f"only --hold {' or '.join(mark.args)}: {mark.kwargs['why']}"
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", autouse=True)
def hold(request: pytest.FixtureRequest) -> Iterator[str]:
    """How guests are held where a test does not choose."""
    chosen: str = request.config.getoption("--hold")
    plain = Config.of

    def of(**options: Any) -> Config:
        undecided = options.get("technique") is None and options.get("mmu") is None
        return plain(**(options | HOLDS[chosen] if undecided else options))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Config, "of", staticmethod(of))
        yield chosen


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of freshly built images."""
    if shutil.which("gcc") is None or shutil.which("make") is None:
        pytest.skip("gcc and make are needed to build the guest kernels")
    out = tmp_path_factory.mktemp("guest")
    command = ["make", "-s", "-j2", "-C", str(ROOT / "guest_kernel"), f"OUT={out}", "all"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return out
