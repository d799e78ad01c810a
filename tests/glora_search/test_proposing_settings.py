"""The settings of a search, and the generators that they seed."""

import subprocess
import sys

import pytest

from glora_search.proposing import SearchSettings
from glora_search.proposing.seeding import candidate_rng, numpy_seed
from glora_search.study.objectives import BY_LOSS
from search_spaces import GLoRASearchError, InvalidConfigError


def test_the_defaults_are_published_but_for_the_loss():
    settings = SearchSettings()
    assert settings.n_candidates == 1_050
    assert (settings.operators, settings.objectives) == ("published", BY_LOSS)
    assert (settings.population, settings.generations, settings.parents) == (50, 20, 10)
    assert (settings.mutations, settings.crossovers) == (25, 25)
    assert settings.mutation_probability == 0.2


def test_all_faults_are_named_at_once():
    with pytest.raises(InvalidConfigError) as caught:
        SearchSettings(
            sampler="annealing",
            operators="global",
            population=4,
            generations=-1,
            parents=0,
            mutations=3,
            crossovers=2,
            mutation_probability=1.5,
            size_price=-1,
        )
    message = str(caught.value)
    for fault in (
        "sampler must be one of evolution, random, tpe, nsgaii; got 'annealing'",
        "operators must be one of local, published; got 'global'",
        "generations must be at least 0; got -1",
        "parents must be at least 1; got 0",
        "got 3 + 2 for a population of 4",
        "mutation_probability must be in 0 to 1; got 1.5",
        "size_price must be a number from 0 on; got -1",
    ):
        assert fault in message
    assert isinstance(caught.value, GLoRASearchError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("children", [{"mutations": -1}, {"crossovers": -1}, {"population": 0}])
def test_negative_numbers_are_refused(children):
    with pytest.raises(InvalidConfigError, match="must be at least"):
        SearchSettings(**children)


def test_candidates_draw_apart_from_each_other():
    """Seed, generation and index each matter, and places do not run into each other."""
    places = [(s, g, i) for s in range(3) for g in range(12) for i in range(12)]
    assert len({candidate_rng(*place).random() for place in places}) == len(places)
    assert len({numpy_seed(*place) for place in places}) == len(places)


def test_draws_are_the_same_in_every_process():
    """Python salts the hash of a str anew in each process; the generators must not depend on it."""
    code = (
        "from glora_search.proposing.seeding import candidate_rng, numpy_seed;"
        "print(candidate_rng(1, 2, 3).random(), numpy_seed(1, 2, 'x'))"
    )
    here = f"{candidate_rng(1, 2, 3).random()} {numpy_seed(1, 2, 'x')}"
    for salt in ("1", "2"):
        there = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": salt},
            capture_output=True,
            text=True,
            check=True,
        )
        assert there.stdout.strip() == here


def test_neither_optuna_nor_torch_is_imported_for_the_evolution():
    """A search by evolution starts without either."""
    code = (
        "import random, sys;"
        "from glora_search.proposing import SearchSettings, make_proposer;"
        "from search_spaces import LayerSpec, SearchSpace, load_preset;"
        "space = SearchSpace([LayerSpec('fc', 4, 4, bias=True)], load_preset('tiny').choices);"
        "print(len(make_proposer(space, SearchSettings(), 0).propose(0, [])),"
        " [m for m in ('optuna', 'torch', 'ray', 'sqlalchemy') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "16 []"
