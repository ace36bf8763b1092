"""``ring1 bench validate``: the cycle model's predictions beside published figures.

A figure that stands in a model's file validates nothing: such rows say "in file".
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from vmm.cli.validation import amortise, blocks, nano, roundtrips, walks
from vmm.cli.validation.figure import WITHIN, Figure, markdown, number
from vmm.errors import UsageError

PARTS: Final[dict[str, Callable[[], list[Figure]]]] = {
    "nano": nano.measure,
    "roundtrips": roundtrips.measure,
    "walks": walks.measure,
    "amortise": amortise.measure,
}
OF_THIS_HOST: Final[dict[str, Callable[[], list[Figure]]]] = {"blocks": blocks.measure}
"""What is measured here and now, and so differs from host to host."""
_HEADINGS: Final = (
    "model", "what", "predicted", "published", "error", "within 25 %", "source",
)  # fmt: skip
_HEAD: Final = """\
# The cycle model against published figures

Made by `ring1 bench validate --write docs/VALIDATION.md`; the same on every host. A row that says
*in file* has the published figure, or one that it was made of, in the model's file: it shows that
the arithmetic holds and validates nothing. All others are predictions from other figures.
"""
_HEAD_HERE: Final = """\
# Block costs against a processor

Made by `ring1 bench validate --only blocks --write docs/VALIDATION-BLOCKS.md` on a processor that
has a table of its own, which CPUID says: another host has other figures in that model's rows. The
tables were made with `make costs`, from llvm-mca and measured figures; what was tuned was tuned on
the blocks that the seed does not hold out.
"""


class _Parser(argparse.ArgumentParser):
    """Errors as everywhere: one line, status 64."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(f"{message}; see ring1 bench validate --help")


def validate(arguments: list[str]) -> int:
    """Run what was asked for; status 0 also where a prediction is off: it is a report."""
    parser = _Parser(prog="ring1 bench validate", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=[*PARTS, *OF_THIS_HOST], help="may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, not tables")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table as Markdown")
    try:
        options = parser.parse_args(arguments)
    except SystemExit:  # --help
        return 0
    every = PARTS | OF_THIS_HOST
    chosen = options.only or (PARTS if options.write else every)
    figures = [figure for name in chosen for figure in every[name]()]
    if options.write:
        _write(options.write, figures)
    if options.json:
        print(json.dumps([figure.as_dict() for figure in figures], indent=2))
    else:
        _print(figures)
    return 0


def summary(figures: list[Figure]) -> str:
    """One sentence over the rows that validate something."""
    judged = [figure for figure in figures if figure.verdict in ("yes", "no")]
    if not judged:
        return "No row validates anything."
    errors = sorted(abs(figure.error or 0) for figure in judged)
    near = sum(figure.verdict == "yes" for figure in judged)
    return (
        f"{near} of {len(judged)} predictions within {WITHIN:.0%}; "
        f"mean error {sum(errors) / len(errors):.1%}, median {errors[len(errors) // 2]:.1%}."
    )


def document(figures: list[Figure]) -> str:
    """Return the page under docs/."""
    here = any(figure.section == blocks.SECTION for figure in figures)
    parts = [_HEAD_HERE if here else _HEAD]
    for section in dict.fromkeys(figure.section for figure in figures):
        rows = [figure for figure in figures if figure.section == section]
        parts.append(f"## {section}\n\n{summary(rows)}\n\n{markdown(rows)}\n")
    return "\n".join(parts)


def _write(path: Path, figures: list[Figure]) -> None:
    try:
        path.write_text(document(figures))
    except OSError as error:
        raise UsageError(f"--write {str(path)!r}: {error.strerror}; name another file") from None


def _print(figures: list[Figure]) -> None:
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = 160
    for section in dict.fromkeys(figure.section for figure in figures):
        rows = [figure for figure in figures if figure.section == section]
        table = Table(title=section, title_justify="left")
        for heading in (
            "model",
            "what",
            "predicted",
            "published",
            "error",
            "within 25 %",
            "source",
        ):
            table.add_column(heading)
        for one in rows:
            published = "" if one.published is None else number(one.published)
            error = "" if one.error is None else f"{one.error:+.0%}"
            table.add_row(
                one.model, f"{one.what} ({one.unit})", number(one.predicted), published, error,
                one.verdict, f"{one.source}. {one.note}" if one.note else one.source,
            )  # fmt: skip
        console.print(table)
        console.print(summary(rows))
