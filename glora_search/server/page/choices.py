"""The choices of subnets: their colours, and which of them survive as generations pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from glora_search.recording import read_layers
from glora_search.reporting.course import generations
from glora_search.reporting.frequencies import observed_shares, pool
from glora_search.reporting.tokens import in_order, short_form
from glora_search.reporting.trials import Trials
from glora_search.server.page.charts import SIDE, Chart, Key, Shape, Tick
from glora_search.study.objectives import Objectives
from search_spaces import SUPPORTS, SearchSpace, rank_of

_SURVIVORS: Final = 20
_MOST_COLUMNS: Final = 40
_RAMP: Final = 8
"""The darkest of the steps in which the style sheet has the colours of ranks."""


def token_css(tokens: Sequence[str]) -> dict[str, str]:
    """The class of the style sheet that colours each token; ranks share a ramp of nine steps."""
    ranks = [token for token in in_order(tokens) if rank_of(token)]
    # As in the report, one or two ranks do without the dark end.
    steps = _RAMP if len(ranks) > 2 else _RAMP // 2
    found = {
        token: f"t-rank-{round(steps * k / max(1, len(ranks) - 1))}"
        for k, token in enumerate(ranks)
    }
    return {token: found.get(token, f"t-{token}") for token in tokens}


def survival_charts(
    space: SearchSpace, trials: Trials, objectives: Objectives
) -> tuple[tuple[str, Chart], ...]:
    """For each support tensor, its choices among the best subnets after each generation.

    Args:
        space: Gives the genes.
        trials: In the order of the search, at least one complete.
        objectives: By which the best are found: the 20 best of all generations until then, but no
            more than half of the subnets.

    Returns:
        (support tensor, chart); the shares of a column are stacked and sum to 1.
    """
    after = _best_after_each(trials, objectives)
    after = after[:: -(-len(after) // _MOST_COLUMNS)]
    read_layers(trials[n].candidate.subnet for _, best in after for n in best)
    shares = [
        observed_shares(space, [trials[n].candidate.subnet for n in best]) for _, best in after
    ]
    charts = []
    for support in SUPPORTS:
        genes = [gene for gene in space.genes if gene.name.endswith(f".{support}")]
        tokens = in_order(token for gene in genes for token in gene.choices)
        columns = [pool(found, genes) for found in shares] if genes else []
        if len(tokens) > 1:
            labels = [generation for generation, _ in after]
            charts.append((support, _stacked(support, tokens, columns, labels)))
    return tuple(charts)


def _best_after_each(trials: Trials, objectives: Objectives) -> list[tuple[int, list[int]]]:
    """(generation, numbers of the best until its end), for generations that have any."""
    found: list[tuple[int, list[int]]] = []
    seen: list[int] = []
    best: list[int] = []
    numbers = list(trials)
    for stretch in generations(list(trials.values())):
        new = [n for n in numbers[stretch.start : stretch.stop] if not trials[n].failed]
        seen += new
        best = sorted([*best, *new], key=lambda n: objectives.rank(trials[n]))[:_SURVIVORS]
        if seen:
            found.append((stretch.number, best[: max(1, -(-len(seen) // 2))]))
    return found


def _stacked(
    support: str, tokens: Sequence[str], columns: Sequence[dict[str, float]], labels: Sequence[int]
) -> Chart:
    css, width = token_css(tokens), SIDE / len(columns)
    below = [0.0] * len(columns)
    shapes = []
    for token in tokens:
        parts = []
        for k, column in enumerate(columns):
            share = column.get(token, 0.0)
            if share:
                left, top = round(k * width), round(SIDE * (1 - below[k] - share))
                right, bottom = round((k + 1) * width), round(SIDE * (1 - below[k]))
                parts.append(f"M{left} {top}H{right}V{bottom}H{left}z")
            below[k] += share
        if parts:
            shapes.append(Shape(f"area {css[token]}", "".join(parts)))
    shown = sorted({0, len(columns) // 2, len(columns) - 1})
    last = ", ".join(
        f"{token} {100 * columns[-1].get(token, 0.0):.0f} %"
        for token in tokens
        if columns[-1].get(token)
    )
    return Chart(
        told=f"Choices of {support} among the best after each generation; at the end {last}.",
        x_title="generation",
        y_title="share of the best",
        x_ticks=tuple(
            Tick(round(100 * (k + 0.5) / len(columns), 2), str(labels[k])) for k in shown
        ),
        y_ticks=(Tick(0, "100 %"), Tick(50, "50 %"), Tick(100, "0 %")),
        shapes=tuple(shapes),
        keys=tuple(Key(f"area {css[token]}", short_form(token)) for token in tokens),
    )
