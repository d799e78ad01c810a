"""Surrogates: models that predict the fitness of a subnet from those that were evaluated.

Ridge regression sees a genome as one-hot columns, one for each choice of each gene; trees see each
gene as a category. The fitness is scaled to
mean 0 and variance 1, and predictions are rounded to a millionth of that: the last digits of a sum
depend on the machine and on its number of threads, and a proposal must not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from glora_search.proposing.preselecting import Surrogate
from glora_search.proposing.settings import SearchSettings
from glora_search.study.outcomes import Outcome
from search_spaces import Gene, Genome, SearchSpace

_ENOUGH: Final = 30  # outcomes; with fewer a model would rank children by chance
_DIGITS: Final = 6
_ALPHAS: Final = np.logspace(-3, 3, 13)  # in units of the mean eigenvalue

Array = NDArray[np.float64]
Codes = NDArray[np.int64]


def fitted(
    space: SearchSpace, settings: SearchSettings, earlier: Sequence[Outcome], seed: int
) -> Surrogate | None:
    """The surrogate that the settings name; None while there are too few outcomes for one.

    Args:
        space: The search space.
        settings: Which surrogate, and which fitness.
        earlier: The outcomes to fit, in any order. Those that failed are left out.
        seed: Of what a model draws at random.
    """
    objectives = settings.objectives
    known = [
        (outcome.candidate.place, space.encode(outcome.candidate.subnet), value)
        for outcome in earlier
        if (value := objectives.fitness(outcome)) is not None and math.isfinite(value)
    ]
    if settings.surrogate == "none" or len(known) < _ENOUGH:
        return None
    known.sort(key=lambda each: each[0])  # sums depend on the order
    values = np.array([value for _, _, value in known])
    if objectives.first.higher_is_better:
        values = -values
    spread = values.std()
    if not spread > 0:
        return None
    reader = Reader(space.genes)
    codes = reader.codes([genome for _, genome, _ in known])
    scaled = (values - values.mean()) / spread
    if settings.surrogate == "trees":
        return Fitted(reader, trees(codes, scaled, seed))
    columns = reader.columns
    weigh = ridge(one_hot(codes, columns), scaled)
    return Fitted(reader, lambda new: weigh(one_hot(new, columns)))


class Reader:
    """From genomes to numbers."""

    def __init__(self, genes: Sequence[Gene]) -> None:
        self._numbers = [{token: k for k, token in enumerate(gene.choices)} for gene in genes]
        self.columns = tuple(len(gene.choices) for gene in genes)

    def codes(self, genomes: Sequence[Genome]) -> Codes:
        """For each genome the number of the choice of each gene, (n, genes)."""
        return np.array(
            [list(map(dict.__getitem__, self._numbers, genome)) for genome in genomes],
            dtype=np.int64,
        )


@dataclass(frozen=True, eq=False)
class Fitted:
    """A `Surrogate`.

    Args:
        reader: Of the genes.
        model: From codes (n, genes) to predictions (n).
    """

    reader: Reader
    model: Callable[[Codes], Array]

    def predict(self, genomes: Sequence[Genome]) -> list[float]:
        """As in `Surrogate`."""
        if not genomes:
            return []
        predicted: list[float] = self.model(self.reader.codes(genomes)).round(_DIGITS).tolist()
        return predicted


def one_hot(codes: Codes, columns: Sequence[int]) -> Array:
    """Rows of zeros and ones, (n, p), with a column for each choice of each gene.

    Args:
        codes: (n, genes).
        columns: For each gene the number of its choices.
    """
    first = np.cumsum([0, *columns[:-1]])
    rows = np.zeros((len(codes), sum(columns)))
    np.put_along_axis(rows, codes + first, 1.0, axis=1)
    return rows


def ridge(x: Array, y: Array) -> Callable[[Array], Array]:
    """Ridge regression with an intercept, and the penalty whose leave-one-out error is least.

    With the centred X = U S V^T the residual of row i when it is left out is
    e_i / (1 - h_ii), where H = 1 1^T / n + U diag(s^2 / (s^2 + alpha)) U^T (Allen, 1974). So one
    decomposition gives the error of every penalty.

    Args:
        x: Rows (n, p).
        y: Values (n), of mean 0.
    """
    n = len(x)
    center = x.mean(0)
    u, eigenvalues = _left_vectors(x - center)
    projected = u.T @ y
    best, chosen = math.inf, 0.0
    for alpha in _ALPHAS * eigenvalues.mean():
        kept = eigenvalues / (eigenvalues + alpha)
        leverage = 1 / n + (u**2) @ kept
        error = float(np.mean(((y - u @ (kept * projected)) / (1 - leverage)) ** 2))
        if error < best:
            best, chosen = error, float(alpha)
    weights = (x - center).T @ (u @ (projected / (eigenvalues + chosen)))  # (p)
    return lambda rows: (rows - center) @ weights


def _left_vectors(x: Array) -> tuple[Array, Array]:
    """The left singular vectors of `x` (n, p) and the squares of its singular values, those that
    are not 0. The decomposition is that of the smaller of X X^T and X^T X.
    """
    n, p = x.shape
    wide = n <= p
    eigenvalues, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    kept = eigenvalues > 1e-9 * eigenvalues[-1]
    eigenvalues, vectors = eigenvalues[kept], vectors[:, kept]
    return (vectors if wide else x @ vectors / np.sqrt(eigenvalues)), eigenvalues


def trees(codes: Codes, y: Array, seed: int) -> Callable[[Codes], Array]:
    """Gradient boosting on histograms, on one thread. A gene is one categorical feature, which for
    trees is the same as its one-hot columns, takes a third of the time, and ranks children better.

    Args:
        codes: (n, genes).
        y: Values (n).
        seed: Of the model.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor  # slow to import
    from threadpoolctl import threadpool_limits

    model: Any = HistGradientBoostingRegressor(
        max_iter=100,
        max_leaf_nodes=4,
        min_samples_leaf=5,
        categorical_features=list(range(codes.shape[1])),
        early_stopping=False,
        random_state=seed,
    )
    with threadpool_limits(limits=1):
        model.fit(codes, y)

    def predict(new: Codes) -> Array:
        with threadpool_limits(limits=1):
            return np.asarray(model.predict(new))

    return predict
