"""``ring1 lab``: the experiments, as tables, JSON, or pages with charts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmm.errors import UsageError

if TYPE_CHECKING:
    from vmm.experiments.report import Report

FAILED = 66  # a claim does not hold


def lab(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Experiments [list them].")
    ] = None,
    write: Annotated[
        str | None, typer.Option("--write", metavar="DIR", help="Write a page and chart of each.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, not a page.")] = False,
) -> int:
    """Run experiments: claims of the literature, each with its figures."""
    from vmm.experiments.registry import EXPERIMENTS
    from vmm.experiments.registry import run as run_one

    if not names:
        for name, words in EXPERIMENTS.items():
            typer.echo(f"{name:16} {words}")
        return 0
    wanted = list(EXPERIMENTS) if names == ["all"] else names
    for name in wanted:
        if name not in EXPERIMENTS:
            known = ", ".join([*EXPERIMENTS, "all"])
            raise UsageError(f"ring1 lab {name!r} is not one of {known}; choose one")
    folder = _folder(write)
    status = 0
    for name in wanted:
        report = run_one(name)
        typer.echo(report.as_json() if json else report.markdown())
        if folder is not None:
            write_page(report, folder)
        status = status if report.holds() else FAILED
    return status


def _folder(write: str | None) -> Path | None:
    if write is None:
        return None
    folder = Path(write)
    if not folder.is_dir():
        raise UsageError(f"--write {write!r} is not a directory; make it first")
    return folder


def write_page(report: "Report", folder: Path) -> None:
    """Write the report's page, and its chart beside it. Raises UsageError without matplotlib."""
    from vmm.experiments.chart import draw

    (folder / f"{report.name}.md").write_text(report.markdown())
    if report.chart is None:
        return
    try:
        draw(report.chart, report.title, folder / f"{report.name}.svg")
    except ModuleNotFoundError:
        raise UsageError(
            "--write draws with matplotlib; install it: pip install matplotlib"
        ) from None
