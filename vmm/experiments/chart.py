"""A report's chart as SVG; the same figures give the same bytes with the same matplotlib."""

from pathlib import Path

from vmm.experiments.report import Chart


def draw(chart: Chart, title: str, path: Path) -> None:
    """Write the file. Raises ModuleNotFoundError without matplotlib."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "ring1"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for name, points in chart.series.items():
        axes.plot([x for x, _ in points], [y for _, y in points], marker=".", label=name)
    if chart.log_across:
        axes.set_xscale("log", base=2)
    if chart.log_up:
        axes.set_yscale("symlog", linthresh=1)
    axes.set_xlabel(chart.across)
    axes.set_ylabel(chart.up)
    axes.set_title(title)
    axes.legend()
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
