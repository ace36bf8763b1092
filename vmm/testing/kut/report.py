"""The table of a run, JUnit, and a baseline to compare with."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from vmm.errors import UsageError
from vmm.testing.kut.run import KutResult, Verdict

_BAD = (Verdict.FAIL, Verdict.TIMEOUT, Verdict.ERROR)


def table(results: Iterable[KutResult]) -> Iterator[str]:
    """Yield a line for each test as its result comes, and a last one with the sums."""
    counts: Counter[Verdict] = Counter()
    yield f"{'test':<28} {'verdict':<8} {'PASS':>6} {'FAIL':>5} {'SKIP':>5} {'s':>7}  reason"
    for result in results:
        yield (
            f"{result.name:<28} {result.verdict:<8} {result.passes:>6} {result.fails:>5} "
            f"{result.skips:>5} {result.seconds:>7.1f}  {result.reason}"
        ).rstrip()
        counts[result.verdict] += 1
    yield ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])


def write_junit(results: Sequence[KutResult], path: Path) -> None:
    """Write JUnit XML."""
    suite = ET.Element(
        "testsuite", name="kvm-unit-tests", tests=str(len(results)),
        failures=str(sum(result.verdict in _BAD for result in results)),
        skipped=str(sum(result.verdict is Verdict.SKIP for result in results)),
    )  # fmt: skip
    for result in results:
        case = ET.SubElement(suite, "testcase", name=result.name, time=str(result.seconds))
        if result.verdict in _BAD:
            failure = ET.SubElement(case, "failure", message=f"{result.verdict} {result.reason}")
            failure.text = "\n".join((*result.failed, *result.tail))
        elif result.verdict is Verdict.SKIP:
            ET.SubElement(case, "skipped", message=result.reason)
    _write(path, '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suite, "unicode"))


def write_baseline(results: Sequence[KutResult], path: Path) -> None:
    """Write what later runs are compared with."""
    rows = {
        result.name: {
            "verdict": str(result.verdict), "passes": result.passes, "failed": list(result.failed),
        }
        for result in results
    }  # fmt: skip
    _write(path, json.dumps(rows, indent=1, sort_keys=True) + "\n")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{path} cannot be written: {reason}") from None


def against_baseline(results: Sequence[KutResult], path: Path) -> list[str]:
    """Return what is worse than the baseline says: one line each. Raises UsageError."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"baseline {path} cannot be read: {error}; write one with --write"
        ) from None
    return [line for result in results if (line := _worse(result, rows.get(result.name)))]


def _worse(result: KutResult, row: dict[str, object] | None) -> str:
    if row is None:
        return ""
    was = str(row["verdict"])
    if result.verdict in _BAD and Verdict(was) not in _BAD:
        return f"{result.name}: {result.verdict} ({result.reason}), was {was}"
    news = sorted(set(result.failed) - set(map(str, row["failed"])))  # type: ignore[call-overload]
    if news:
        return f"{result.name}: fails now: {', '.join(news)}"
    if result.passes < int(str(row["passes"])) and result.verdict is Verdict.PASS:
        return f"{result.name}: {result.passes} checks pass, were {row['passes']}"
    return ""
