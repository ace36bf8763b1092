"""The pytest plugin, installed with ring1 (`pytest11`): the `vm` fixture, cases, exit coverage.

    @pytest.mark.guest(mode="prot32", ring=3, techniques=["vtx", "trap"])
    def test_ud2(vm):
        vm.asm("nop; ud2")
        vm.run()
        assert vm.fault.vector == 6

It imports nothing of ring1 until a test wants it: every pytest run on the machine loads it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from vmm.testing.environment import Environment
    from vmm.testing.guest import Guest
    from vmm.testing.pool import Pool

_STATE = ("mode", "ring", "paging", "pages")
_OWN = (*_STATE, "technique", "techniques", "limit")
_FOLDER = ".ring1"
_LARGEST_TRACE = 1 << 20


def pytest_addoption(parser: pytest.Parser) -> None:
    """Our options, in a group of their own."""
    group = parser.getgroup("ring1", "instruction-level tests")
    group.addoption(
        "--exit-coverage", nargs="?", const=0.0, type=float, metavar="PERCENT",
        help="print which VM-exits the tests reached; fail below PERCENT of all classes",
    )  # fmt: skip
    group.addoption(
        "--exit-trace", metavar="DIR",
        help="write a Perfetto trace of each failed test to DIR, and into JUnit output",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker; begin to count exits where coverage is asked for."""
    config.addinivalue_line(
        "markers",
        "guest(mode, ring, paging, pages, techniques, limit, **options of ring1 run): "
        "the guest that the fixture `vm` is",
    )
    if config.getoption("--exit-coverage") is not None:
        from vmm.testing.coverage import start

        start()
        config.pluginmanager.register(_Coverage(config), "ring1-exit-coverage")


class _Coverage:
    """Collects what was reached, here and in xdist's workers."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.reached: set[tuple[int, int, int]] = set()

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        from vmm.testing.coverage import reached, share_of

        self.reached |= reached()
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["ring1_exits"] = sorted(self.reached)
            return
        least = self.config.getoption("--exit-coverage")
        if share_of(self.reached) < least and session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:  # noqa: ARG002
        found = getattr(node, "workeroutput", {}).get("ring1_exits", ())
        self.reached |= {tuple(item) for item in found}

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        from vmm.testing.coverage import table

        terminalreporter.section("exit coverage")
        for line in table(self.reached, self.config.getoption("--exit-coverage")):
            terminalreporter.line(line)


def _marked(item: pytest.Item | pytest.FixtureRequest) -> dict[str, Any]:
    node = item.node if isinstance(item, pytest.FixtureRequest) else item
    found: dict[str, Any] = {}
    for marker in reversed(list(node.iter_markers("guest"))):
        found |= marker.kwargs
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The same test under each technique of its marker."""
    names: Any = None
    for marker in metafunc.definition.iter_markers("guest"):
        names = names or marker.kwargs.get("techniques")
    if names is None or "vm" not in metafunc.fixturenames:
        return
    from vmm.testing.holds import BUILT

    chosen = BUILT if names == "all" else names
    metafunc.parametrize("vm", chosen, indirect=True)


@pytest.fixture(scope="session")
def ring1_pool() -> Iterator[Pool]:
    """The guests of this session."""
    from vmm.testing.pool import Pool

    pool = Pool()
    yield pool
    pool.close()


@pytest.fixture
def vm(request: pytest.FixtureRequest, ring1_pool: Pool) -> Guest:
    """A VM without an image, fresh for each test: see vmm.testing.guest."""
    marked = _marked(request)
    technique = getattr(request, "param", None) or marked.get("technique", "vtx")
    options = {key: value for key, value in marked.items() if key not in _OWN}
    guest = _guest(ring1_pool, environment_of(marked), technique, options)
    if marked.get("limit") is not None:
        guest.limit = marked["limit"]
    return guest


def _guest(pool: Pool, environment: Environment, technique: str, options: dict[str, Any]) -> Guest:
    from vmm.errors import NotBuiltError
    from vmm.testing.holds import UNFIT, options_of

    if technique in UNFIT:
        pytest.skip(UNFIT[technique])
    try:
        return pool.guest(environment, options | options_of(technique))
    except NotBuiltError as error:
        pytest.skip(str(error))


def environment_of(marked: dict[str, Any]) -> Environment:
    """Return the state that a marker asks for. Raises UsageError."""
    from vmm.errors import UsageError
    from vmm.testing.environment import Environment, Mode
    from vmm.testing.paging import Scheme

    try:
        mode = Mode(marked.get("mode", Mode.LONG64))
        paging = None if marked.get("paging") is None else Scheme(marked["paging"])
    except ValueError as error:
        raise UsageError(f"guest marker: {error}; see vmm.testing.environment") from None
    return Environment(mode, marked.get("ring", 0), paging, tuple(marked.get("pages", ())))


# ---- cases ----


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A file test_*.toml holds cases."""
    if file_path.suffix == ".toml" and file_path.name.startswith("test_"):
        return CaseFile.from_parent(parent, path=file_path)
    return None


class CaseFile(pytest.File):
    """A TOML file of cases."""

    def collect(self) -> Iterator[CaseItem]:
        """Yield an item for each case and technique."""
        from vmm.errors import UsageError
        from vmm.testing.cases.case import read_cases

        try:
            cases = read_cases(self.path)
        except UsageError as error:
            raise self.CollectError(str(error)) from None
        for case in cases:
            for technique in case.techniques:
                name = f"{case.name}[{technique}]"
                yield CaseItem.from_parent(self, name=name, case=case, technique=technique)


class CaseItem(pytest.Item):
    """A case under one technique."""

    def __init__(self, *, case: Any, technique: str, **rest: Any) -> None:
        """Keep what to run."""
        super().__init__(**rest)
        self.case, self.technique = case, technique
        self.guest: Guest | None = None

    def setup(self) -> None:
        """Take a guest; without one that can be made, skip or fail."""
        pool = _pool_of(self.session)
        options = {"memory": "64M"} | self.case.options
        self.guest = _guest(pool, self.case.environment, self.technique, options)

    def runtest(self) -> None:
        """Run and compare."""
        from vmm.testing.cases.run import mismatches

        assert self.guest is not None
        if found := list(mismatches(self.guest, self.case)):
            raise CaseFailed("\n".join(found))

    def teardown(self) -> None:
        """Let go of the guest: items live as long as the session."""
        self.guest = None

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """Show a case's mismatches without our own traceback."""
        if isinstance(excinfo.value, AssertionError) or _is_usage_error(excinfo.value):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where it stands."""
        return self.path, 0, self.name


class CaseFailed(AssertionError):  # noqa: N818 - it is what pytest shows
    """What is not as a case expects."""


def _is_usage_error(error: object) -> bool:
    from vmm.errors import UsageError

    return isinstance(error, UsageError)


_pool_key = pytest.StashKey["Pool"]()


def _pool_of(session: pytest.Session) -> Pool:
    from vmm.testing.pool import Pool

    if _pool_key not in session.stash:
        session.stash[_pool_key] = Pool()
        session.config.add_cleanup(session.stash[_pool_key].close)
    return session.stash[_pool_key]


# ---- failures ----


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add code, registers, exits and how to replay to the report of a failed test."""
    report = yield
    guest: Any = getattr(item, "guest", None) or getattr(item, "funcargs", {}).get("vm")
    if call.when == "call" and report.failed and type(guest).__name__ == "Guest":
        from vmm.testing.failure import report as describe

        case = _case_path(item)
        report.sections.append(("ring1", describe(guest, f"ring1 debug {case}")))
        _write_case(item, guest, case)
        if folder := item.config.getoption("--exit-trace"):
            _attach_trace(item, Path(folder), case)
    return report


def _case_path(item: pytest.Item) -> Path:
    safe = "".join(c if c.isalnum() or c in "-_" else "-" for c in item.name)
    path = item.config.rootpath / _FOLDER / f"{safe}.toml"
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def _write_case(item: pytest.Item, guest: Guest, path: Path) -> None:
    """Write the start of the failed run as a case, for the debugger."""
    from vmm.testing.cases.write import case_of

    path.parent.mkdir(exist_ok=True)
    path.write_text(case_of(guest, item.nodeid))


def _attach_trace(item: pytest.Item, folder: Path, case: Path) -> None:
    """Run the failed case again with a trace; JUnit gets its path, and a small one itself."""
    import base64

    from vmm.testing.replay import trace_case

    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{case.stem}.perfetto"
    trace_case(case, target)
    item.user_properties.append(("perfetto", str(target)))
    data = target.read_bytes()
    if len(data) <= _LARGEST_TRACE:
        item.user_properties.append(("perfetto.base64", base64.b64encode(data).decode()))
