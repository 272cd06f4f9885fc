"""A table as a picture: a panel for each measure, a dot for each method, the paper's number as a hollow one."""

import textwrap
from collections.abc import Mapping

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from antehoc_hf.evaluation.controls import CONTROLS
from antehoc_hf.paper.tables import Table, Value

_OURS, _OTHERS, _CONTROL, _PAPER = "#b5350b", "#23527c", "#9a9a9a", "#000000"
_ROW, _PANEL = 0.26, 1.9


def plot(table: Table) -> Figure:
    """Draws a table.

    Args:
        table: with at least one row.

    Returns:
        `Figure`: with a canvas of its own and no global state.
    """
    note = "bar: standard deviation over seeds; hollow: the paper's number; grey: explains nothing"
    return plot_rows(table.rows, table.columns, f"{table.kind} {table.number}: {table.title}", note)


def plot_rows(rows: Mapping[str, Mapping[str, Value]], columns: Mapping[str, str], title: str, note: str) -> Figure:
    """Draws methods side by side.

    Args:
        rows (`dict`): method → measure → value; at least one.
        columns (`dict`): measure → heading.
        title (`str`): what it shows, and on what.
        note (`str`): what must be known to read it.

    Returns:
        `Figure`: with a canvas of its own and no global state.
    """
    names = list(rows)
    width = 1.6 + _PANEL * len(columns)
    figure = Figure(figsize=(width, 1.5 + _ROW * len(names)), dpi=130, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axis, (measure, heading) in zip(axes, columns.items(), strict=True):
        for position, name in enumerate(names):
            value = rows[name].get(measure)
            if value is None:
                continue
            method = name.split(",")[0]
            color = _OURS if method == "antehoc" else _CONTROL if method in CONTROLS else _OTHERS
            if value.mean is not None:
                axis.errorbar(value.mean, position, xerr=value.deviation, fmt="o", color=color, ms=5, capsize=2)
            if value.published is not None:
                axis.plot(value.published, position, "D", mfc="none", mec=_PAPER, ms=5)
        axis.set_title("\n".join(textwrap.wrap(heading, 16)), fontsize=8)
        axis.tick_params(labelsize=7)
        axis.xaxis.set_major_locator(MaxNLocator(3))
        axis.grid(axis="x", color="#e5e5e5", linewidth=0.6)
        axis.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
    axes[0].set_yticks(range(len(names)), names, fontsize=8)
    axes[0].invert_yaxis()
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    figure.text(0.01, -0.02, note, fontsize=7)
    return figure
