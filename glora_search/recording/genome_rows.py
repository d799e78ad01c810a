"""The parameter rows of trials. A trial has one row for each gene; here they travel as one text.

The text has one character for each gene: choice number k of the gene is the character 48 + k, so
the first ten choices are digits. Only the text is sent to and from the database; SQL turns it into
rows, and rows into it. Sending 240 rows for each trial would take several times as long as storing
them, and fetching them would take longer still.

The database does this work while Python's global lock is free, so the search continues meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from itertools import count
from operator import itemgetter
from typing import Any, Final

import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution, distribution_to_json
from optuna.storages._rdb import models

from glora_search.study.errors import StorageError
from search_spaces import SUPPORTS, Gene, LayerConfig, SearchSpace, SubnetConfig
from search_spaces.configs import layer_config

_PARAMS: Final[sa.Table] = models.TrialParamModel.__table__
_TRIALS: Final[sa.Table] = models.TrialModel.__table__

_FIRST: Final = 48  # the character of a gene's first choice
_NO_CHOICE: Final = " "  # stands for a value that cannot be a choice
_MAX_CHOICES: Final = 55_000  # higher numbers are no characters
_BETWEEN_NAMES: Final = "\x1f"
_AFTER_NAMES: Final = "\x1e"

# Without LIMIT -1 SQLite would parse the JSON of the genes again for every trial. CROSS JOIN loops
# over trials, and within each over genes (SQLite's manual), so rows lie in the order of genes.
_INSERT_SQLITE: Final = """\
INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
SELECT
    trial.id,
    gene.name,
    unicode(substr(trial.choices, gene.n + 1, 1)) - :first,
    gene.distribution
FROM (
    SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS choices
    FROM json_each(:trials) LIMIT -1
) AS trial
CROSS JOIN (
    SELECT
        key AS n,
        json_extract(value, '$[0]') AS name,
        json_extract(value, '$[1]') AS distribution
    FROM json_each(:genes) LIMIT -1
) AS gene
"""
_INSERT_POSTGRESQL: Final = """\
INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
SELECT
    trial.id,
    gene.name,
    ascii(substr(trial.choices, CAST(gene.n AS int), 1)) - :first,
    gene.distribution
FROM unnest(CAST(:ids AS int[]), CAST(:choices AS text[]))
    WITH ORDINALITY AS trial (id, choices, n)
CROSS JOIN unnest(CAST(:names AS text[]), CAST(:distributions AS text[]))
    WITH ORDINALITY AS gene (name, distribution, n)
ORDER BY trial.n, gene.n
"""


class GenomeRows:
    """Writes and reads the parameter rows of the trials of one study.

    Args:
        space: What the study's subnets are chosen from.
        is_sqlite: Whether the database is SQLite; otherwise it is PostgreSQL.
    """

    def __init__(self, space: SearchSpace, *, is_sqlite: bool) -> None:
        self._space = space
        self._is_sqlite = is_sqlite
        # Nearly all trials have their rows in the same order, so each order is worked out once.
        self._into_order = lru_cache(maxsize=16)(self._order)

    # What follows is made when it is needed: a list of studies needs none of it.

    @cached_property
    def _characters(self) -> list[dict[str, str]]:
        return [
            {token: chr(_FIRST + k) for k, token in enumerate(gene.choices)}
            for gene in self._space.genes
        ]

    @cached_property
    def _layers(self) -> list[tuple[str, slice, _LayerTexts]]:
        width, genes = len(SUPPORTS), self._space.genes
        return [
            (layer.name, slice(k, k + width), _LayerTexts(genes[k : k + width]))
            for layer, k in zip(self._space.layers, count(0, width), strict=False)
        ]

    @cached_property
    def _names(self) -> list[str]:
        return [gene.name for gene in self._space.genes]

    @cached_property
    def _distributions(self) -> list[str]:
        return [
            distribution_to_json(CategoricalDistribution(gene.choices))
            for gene in self._space.genes
        ]

    def text(self, subnet: SubnetConfig) -> str:
        """The text of `subnet`, in the order of the space's genes.

        Raises:
            InvalidConfigError: The subnet is not of the study's search space.
        """
        genome = self._space.encode(subnet)
        return "".join(map(dict.__getitem__, self._characters, genome))

    def insert(self, c: sa.Connection, trials: Sequence[tuple[int, str]]) -> None:
        """Insert all rows of new trials, in the order of the space's genes, by one statement.

        Args:
            c: A transaction.
            trials: For each trial its key and the text of its subnet.
        """
        if self._is_sqlite:
            genes = list(zip(self._names, self._distributions, strict=True))
            arguments: dict[str, Any] = {"trials": json.dumps(trials), "genes": json.dumps(genes)}
            c.execute(sa.text(_INSERT_SQLITE), {"first": _FIRST, **arguments})
            return
        ids, texts = zip(*trials, strict=True)
        arguments = {"ids": list(ids), "choices": list(texts), "names": self._names}
        c.execute(
            sa.text(_INSERT_POSTGRESQL),
            {"first": _FIRST, **arguments, "distributions": self._distributions},
        )

    def column(self) -> sa.ScalarSelect[str]:
        """Names and choices in the parameter rows of a row of `trials`; `subnet` parses them.

        Names and choices have the same order, since both aggregates read the same rows. Decoding
        also compares the subnet's digest with the recorded one.
        """
        value = _PARAMS.c.param_value
        character = sa.func.char if self._is_sqlite else sa.func.chr
        choice = sa.case(
            (
                value.between(0, _MAX_CHOICES),
                character(_FIRST + sa.cast(value, sa.Integer)),
            ),
            else_=_NO_CHOICE,
        )
        together = sa.func.aggregate_strings
        names, choices = together(_PARAMS.c.param_name, _BETWEEN_NAMES), together(choice, "")
        return (
            sa.select(names + _AFTER_NAMES + choices)
            .where(_PARAMS.c.trial_id == _TRIALS.c.trial_id)
            .correlate(_TRIALS)
            .scalar_subquery()
        )

    def subnet(self, found: str | None) -> SubnetConfig:
        """The subnet of a trial.

        Args:
            found: What `column` gave; None for a trial without parameters.

        Raises:
            StorageError: A parameter is missing, or its value is not a choice of its gene.
        """
        names, _, choices = (found or "").rpartition(_AFTER_NAMES)
        try:
            text = "".join(self._into_order(names)(choices))
        except IndexError:
            raise StorageError("it has parameters whose names cannot be told apart") from None
        return SubnetConfig({name: configs[text[part]] for name, part, configs in self._layers})

    def _order(self, names: str) -> Callable[[str], tuple[str, ...]]:
        """A function that sorts choices from the order of `names` into the order of the genes.

        It leaves out parameters that are no genes, such as those that somebody added by hand.
        """
        places = {name: place for place, name in enumerate(names.split(_BETWEEN_NAMES))}
        if missing := [name for name in self._names if name not in places]:
            raise StorageError(f"it lacks the parameter {missing[0]!r}")
        return itemgetter(*(places[name] for name in self._names))


class _LayerTexts(dict[str, LayerConfig]):
    """From the five characters of a layer to its configuration, which is made at the first use.

    Args:
        genes: The genes of the layer.
    """

    def __init__(self, genes: Sequence[Gene]) -> None:
        super().__init__()
        self._genes = genes

    def __missing__(self, text: str) -> LayerConfig:
        tokens = []
        for gene, character in zip(self._genes, text, strict=True):
            k = ord(character) - _FIRST
            if not 0 <= k < len(gene.choices):
                raise StorageError(f"its parameter {gene.name!r} is none of the gene's choices")
            tokens.append(gene.choices[k])
        self[text] = layer_config(*tokens)
        return self[text]
