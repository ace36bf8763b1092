"""The page: HTML with its style and its charts (SVG) inside. Nothing is fetched, nothing is run."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from vmm.observe.report.gather import SLOTS, Report, top

_COLOURS: Final = (
    "#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#edc948", "#9c755f",
)  # fmt: skip
_OTHERS: Final = "#bab0ac"
_WIDTH, _HEIGHT = 960, 220
_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto;
padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; }
th, td { padding: .15rem .6rem; border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
code { font: 13px ui-monospace, monospace; } td.bar { width: 30%; }
td.bar div { background: #4e79a7; height: .8rem; min-width: 1px; }
svg { width: 100%; height: auto; background: var(--soft); }
svg text { fill: currentColor; font-size: 12px; }
.key { display: inline-block; margin-right: 1rem; } .key i { display: inline-block; width: .8rem;
height: .8rem; margin-right: .3rem; } p.note { opacity: .75; }
"""


def page(report: Report) -> str:
    """Return the whole document."""
    title = f"ring1: {report.image or 'a guest'}"
    parts = [
        "<!doctype html>", '<html lang="en"><head><meta charset="utf-8">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>", *_summary(report), *_over_time(report), *_ledger(report),
        *_exits(report), *_sites(report), *_targets(report), "</body></html>",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def _summary(report: Report) -> Iterator[str]:
    seconds = report.cycles / report.frequency
    yield (
        f"<p>{sum(report.exits.values()):,} VM-exits, {report.instructions:,} instructions, "
        f"{report.cycles:,} cycles ({seconds:.6f} s of the guest's time), "
        f"{report.cpus} vCPU{'s' if report.cpus > 1 else ''}, "
        f"technique {escape(report.technique)}, timing {escape(report.timing)}.</p>"
    )
    if report.is_cut:
        yield '<p class="note">The oldest records were given up: this is the end of the run.</p>'


def _colours(report: Report) -> dict[str, str]:
    return dict(zip(top(report.exits, len(_COLOURS)), _COLOURS, strict=False))


def _over_time(report: Report) -> Iterator[str]:
    """Stacked columns, one a slice of time."""
    yield "<h2>Exits over time</h2>"
    highest = max((sum(slot.values()) for slot in report.over_time), default=0)
    if not highest:
        yield "<p>No exits.</p>"
        return
    colours = _colours(report)
    yield f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 20}" role="img">'
    step, milliseconds = _WIDTH / SLOTS, report.cycles / report.frequency * 1000
    for number, slot in enumerate(report.over_time):
        top_of = float(_HEIGHT)
        for name in [*colours, *sorted(set(slot) - set(colours))]:
            if not slot[name]:
                continue
            height = slot[name] / highest * (_HEIGHT - 10)
            top_of -= height
            yield (
                f'<rect x="{number * step:.2f}" y="{top_of:.2f}" width="{step:.2f}" '
                f'height="{height:.2f}" fill="{colours.get(name, _OTHERS)}">'
                f"<title>{escape(name)}: {slot[name]:,}</title></rect>"
            )
    yield f'<text x="4" y="14">{highest:,} exits in {milliseconds / SLOTS:.4g} ms</text>'
    below = f'y="{_HEIGHT + 15}"'
    yield f'<text x="{_WIDTH - 4}" {below} text-anchor="end">{milliseconds:.4g} ms</text>'
    yield f'<text x="4" {below}>0</text></svg>'
    yield _key([*colours.items(), ("others", _OTHERS)])


def _key(entries: Sequence[tuple[str, str]]) -> str:
    keys = (
        f'<span class="key"><i style="background:{colour}"></i>{escape(name)}</span>'
        for name, colour in entries
    )
    return f"<p>{''.join(keys)}</p>"


def _ledger(report: Report) -> Iterator[str]:
    """One bar for the whole clock, and the figures."""
    booked = {name: cycles for name, cycles in report.ledger.items() if cycles}
    yield "<h2>Where the cycles went</h2>"
    if not booked:
        yield "<p>The recording was not ended in order: there is no ledger.</p>"
        return
    total, at = sum(booked.values()), 0.0
    palette = dict(zip(booked, (*_COLOURS, _OTHERS), strict=False))
    yield f'<svg viewBox="0 0 {_WIDTH} 40" role="img">'
    for name, cycles in booked.items():
        width = cycles / total * _WIDTH
        yield (
            f'<rect x="{at:.2f}" y="0" width="{width:.2f}" height="40" fill="{palette[name]}">'
            f"<title>{escape(name)}: {cycles:,} cycles</title></rect>"
        )
        at += width
    yield "</svg>"
    yield _key(list(palette.items()))
    rows = [(name, f"{cycles:,}", f"{cycles / total:.2%}") for name, cycles in booked.items()]
    yield from _table(("heading", "cycles", "share"), rows, numbers={1, 2})


def _exits(report: Report) -> Iterator[str]:
    yield "<h2>Exits by reason</h2>"
    total = sum(report.exits.values()) or 1
    rows = [
        (
            name, f"{report.exits[name]:,}", f"{report.exits[name] / total:.2%}",
            f"{report.exit_cycles[name]:,}",
        )
        for name in top(report.exits, len(report.exits))
    ]  # fmt: skip
    yield from _table(("exit", "count", "share", "cycles to the next entry"), rows, {1, 2, 3})


def _sites(report: Report) -> Iterator[str]:
    yield "<h2>Hottest exit sites</h2>"
    most = max((site.count for site in report.sites), default=1)
    rows = [
        (
            site.where or f"{site.rip:#x}", f"{site.rip:#x}", site.reason, f"{site.count:,}",
            f"{site.cycles:,}", _bar(site.count, most),
        )
        for site in report.sites
    ]  # fmt: skip
    yield from _table(("where", "RIP", "exit", "count", "cycles", ""), rows, {3, 4}, bars={5})


def _targets(report: Report) -> Iterator[str]:
    yield "<h2>Hottest guest addresses</h2>"
    most = max((target.reads + target.writes for target in report.targets), default=1)
    rows = [
        (
            f"{target.kind} {target.name}", target.device, f"{target.reads:,}",
            f"{target.writes:,}", _bar(target.reads + target.writes, most),
        )
        for target in report.targets
    ]  # fmt: skip
    yield from _table(("address", "device", "reads", "writes", ""), rows, {2, 3}, bars={4})


def _bar(part: int, whole: int) -> str:
    return f'<div style="width:{100 * part / whole:.1f}%"></div>'


def _table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], numbers: set[int],
    bars: "set[int] | frozenset[int]" = frozenset(),
) -> Iterator[str]:  # fmt: skip
    """A table; cells are text but for bars, which are made here."""
    if not rows:
        yield "<p>None.</p>"
        return
    kinds = ["n" if n in numbers else "bar" if n in bars else "" for n in range(len(titles))]
    heads = zip(kinds, titles, strict=True)
    yield "<table><tr>" + "".join(f'<th class="{k}">{escape(t)}</th>' for k, t in heads) + "</tr>"
    for row in rows:
        cells = (
            f'<td class="{kind}">{cell if kind == "bar" else f"<code>{escape(cell)}</code>"}</td>'
            for kind, cell in zip(kinds, row, strict=True)
        )
        yield "<tr>" + "".join(cells) + "</tr>"
    yield "</table>"
