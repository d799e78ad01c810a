"""The page: figures, tables and texts of one study, put into the template beside this file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

import jinja2
import plotly.graph_objects as go
import plotly.io
import plotly.offline
from markupsafe import Markup

from glora_search.reporting import formatting
from glora_search.reporting.frequencies import expected_shares, observed_shares
from glora_search.reporting.frequency_figures import (
    ChoiceShares,
    by_depth_figure,
    low_rank_figure,
    overall_figure,
)
from glora_search.reporting.history import history_figure
from glora_search.reporting.hypervolume import hypervolume_figure
from glora_search.reporting.layer_grid import layer_grid_figures, least_width_px
from glora_search.reporting.snapshot import Snapshot
from glora_search.reporting.summary import key_numbers, summary_sentences
from glora_search.reporting.tokens import colours, in_order, short_form, text_colour
from glora_search.reporting.trade_off import trade_off_figure
from glora_search.reporting.trials import best_share, pareto_front
from glora_search.study.objectives import LOSS, TOP1
from glora_search.study.toml_text import toml_text
from search_spaces import NO_LIMITS

_TEMPLATE: Final = "report.html.jinja"
_LISTED: Final = 10
_ZOOMABLE: Final = ("history", "trade_off")
_PLOT_OPTIONS: Final = {
    "displaylogo": False,
    "responsive": True,
    # Listed, and without an address: one of the usual buttons sends the figure to a server.
    "modeBarButtons": [["toImage"], ["zoom2d", "pan2d", "resetScale2d"]],
    "plotlyServerURL": "",
}


def render_page(snapshot: Snapshot, *, now: datetime | None = None) -> str:
    """The report as HTML, complete with plotly.js: it loads nothing from anywhere.

    Args:
        snapshot: The study.
        now: When the report was made, as it will say; the current time by default.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("glora_search", "reporting"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "percent": formatting.percent,
        "with_error": formatting.percent_with_error,
        "with_interval": lambda found: formatting.percent_with_interval(**asdict(found)),
        "points": lambda found: formatting.points_with_interval(**asdict(found)),
        "count": formatting.count,
        "loss": formatting.loss,
        "plural": formatting.plural,
        "text_colour": text_colour,
    }
    return environment.get_template(_TEMPLATE).render(
        snapshot=snapshot,
        facts=snapshot.facts,
        now=(now or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC"),
        sentences=summary_sentences(snapshot),
        key_numbers=key_numbers(snapshot),
        top=snapshot.ranking[:_LISTED],
        study_text=toml_text(snapshot.facts.study),
        load_line=_load_line(snapshot),
        figures=_figures(snapshot),
        plotly_js=Markup(plotly.offline.get_plotlyjs()),
        **_winner(snapshot),
    )


def _figures(snapshot: Snapshot) -> dict[str, Any]:
    """Name to the HTML of a figure, or of several; what there is no data for is absent."""
    if not snapshot.complete:
        return {}
    trials, objectives = snapshot.trials, snapshot.objectives
    best = best_share(trials, objectives)
    shares = ChoiceShares(
        best=_shares_of(snapshot, best),
        evaluated=_shares_of(snapshot, snapshot.complete),
        expected=expected_shares(snapshot.space, snapshot.facts.limits),
    )
    winner = snapshot.ranking[0] if snapshot.winner is None else snapshot.winner
    drawn = {
        "history": [history_figure(trials, objectives)],
        "trade_off": [
            trade_off_figure(
                trials,
                objectives,
                snapshot.facts.n_val,
                winner=snapshot.winner,
                knee=snapshot.knee,
            )
        ],
        "hypervolume": [hypervolume_figure(trials, objectives)],
        "winner": layer_grid_figures(snapshot.space, trials[winner].candidate.subnet),
        "overall": [overall_figure(snapshot.space, shares)],
        "low_rank": [low_rank_figure(snapshot.space, shares)],
        "by_depth": [by_depth_figure(snapshot.space, shares)],
    }
    parts = {
        name: [
            _html(figure, f"{name}-{k}", zoomable=name in _ZOOMABLE)
            for k, figure in enumerate(figures)
            if figure
        ]
        for name, figures in drawn.items()
    }
    return {**parts, "winner_least_px": least_width_px(drawn["winner"][0])}


def _winner(snapshot: Snapshot) -> dict[str, Any]:
    """What only a study with a winner has to show."""
    if snapshot.winner is None:
        return {}
    space = snapshot.space
    offered = in_order(token for choices in space.choices.values() for token in choices)
    palette = colours(offered)
    return {
        "token_key": [(short_form(token), token, palette[token]) for token in offered],
        "composition": snapshot.composition(snapshot.winner),
        "n_best": len(best_share(snapshot.trials, snapshot.objectives)),
        "limited": snapshot.facts.limits != NO_LIMITS,
        "fronts": [
            (label, pareto_front(snapshot.trials, measure))
            for label, measure in (("val top-1", TOP1), ("val loss", LOSS))
        ],
    }


def _shares_of(snapshot: Snapshot, numbers: Iterable[int]) -> Any:
    subnets = [snapshot.trials[number].candidate.subnet for number in numbers]
    return observed_shares(snapshot.space, subnets)


def _html(figure: go.Figure, name: str, *, zoomable: bool) -> Markup:
    # plotly escapes <, > and / in the figure's JSON, so that no text of a study can end the script.
    return Markup(
        plotly.io.to_html(
            figure,
            config={**_PLOT_OPTIONS, "displayModeBar": "hover" if zoomable else False},
            include_plotlyjs=False,
            full_html=False,
            div_id=f"figure-{name}",
            default_width="100%",
            default_height=f"{figure.layout.height}px",
        )
    )


def _load_line(snapshot: Snapshot) -> str | None:
    """The call that loads the export; a JSON string is a Python literal as well."""
    export = snapshot.facts.export
    if export is None or export.directory is None:
        return None
    name = json.dumps(f"local-dir:{export.directory}", ensure_ascii=False)
    return f"timm.create_model({name}, pretrained=True)"
