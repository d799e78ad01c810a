"""What all figures of the report share: fonts, lines and margins."""

from __future__ import annotations

from typing import Any, Final

import plotly.graph_objects as go

INK: Final = "#1F2933"
MUTED: Final = "#616E7C"
RULE: Final = "#E4E7EB"
WINNER: Final = "#D55E00"
FAILED: Final = "#A61B1B"
FONT: Final = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"

_AXIS: Final = {
    "gridcolor": RULE,
    "linecolor": "#9AA5B1",
    "showline": True,
    "ticks": "outside",
    "tickcolor": "#9AA5B1",
    "ticklen": 4,
    "zeroline": False,
    "automargin": True,
    "title": {"standoff": 10, "font": {"size": 13}},
}
TEMPLATE: Final = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 12, "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "hoverlabel": {"align": "left", "bgcolor": "white", "font": {"family": FONT, "size": 12}},
        "hovermode": "closest",
        "margin": {"l": 64, "r": 16, "t": 48, "b": 48},
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "itemsizing": "constant",
            "font": {"size": 12},
        },
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "annotationdefaults": {"font": {"size": 13, "color": INK}},
    }
)


def left_title(figure: go.Figure, text: str, **place: Any) -> None:
    """Write the title of a panel above its left edge.

    Args:
        figure: What to write on.
        text: The title.
        place: `xref`, `yref`, and `x` where the panel's left edge is not that of its axis.
    """
    figure.add_annotation(
        text=text,
        showarrow=False,
        **{"x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom", "yshift": 4, **place},
    )
