"""The evolution as an Optuna sampler: Optuna's own suite, then what is particular to it."""

import copy
import pickle
import subprocess
import sys
from collections import Counter

import optuna
import pytest
from known_fitness import loss_of, tiny_space, vit_space
from optuna.distributions import CategoricalDistribution
from optuna.samplers import PartialFixedSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, SingleOnlySamplerTestCase
from optuna.trial import TrialState

from glora_search.proposing.sampler import EvolutionSampler
from search_spaces import InfeasibleLimitError, InvalidConfigError, SubnetConfig

SPACE = vit_space(2)


@pytest.fixture(autouse=True)
def _quiet_optuna():
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(verbosity)


class TestOptunasOwnSuite(BasicSamplerTestCase, SingleOnlySamplerTestCase):
    """What Optuna asks of every sampler for one objective."""

    @pytest.fixture
    def sampler(self):
        return lambda: EvolutionSampler(seed=0)

    def test_a_small_population_does_too(self, sampler):
        """The suites above run within generation 0; these trials cross into later ones."""
        study = optuna.create_study(sampler=EvolutionSampler(seed=0, population=3))
        study.optimize(conditional, n_trials=20)
        assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 20


def conditional(trial):
    """Categorical, numerical and conditional parameters together."""
    kind = trial.suggest_categorical("kind", ["a", "b", "c"])
    flag = trial.suggest_categorical("flag", [True, False])
    width = trial.suggest_int("width", 1, 64, log=True)
    if flag:
        width += trial.suggest_categorical("step", [1, 10])
    return width + 100 * (kind == "a") + trial.suggest_float("x", 0, 1)


def gene_objective(trial):
    """The table's loss of a subnet whose genes are suggested one by one."""
    params = {g.name: trial.suggest_categorical(g.name, g.choices) for g in SPACE.genes}
    return loss_of(SPACE, SubnetConfig.from_params(params))


def params_of(study):
    return [trial.params for trial in study.trials]


def run(n_trials, objective=gene_objective, direction="minimize", storage=None, **arguments):
    arguments = {"seed": 0, "population": 8, "parents": 3, **arguments}
    study = optuna.create_study(
        sampler=EvolutionSampler(**arguments),
        direction=direction,
        storage=storage,
        study_name="s",
        load_if_exists=True,
    )
    study.optimize(objective, n_trials=n_trials)
    return study


@pytest.mark.slow
@pytest.mark.parametrize("space", [None, SPACE], ids=["any study", "with space"])
@pytest.mark.parametrize("operators", ["local", "published"])
def test_later_generations_are_better_than_the_first(space, operators):
    losses = [t.value for t in run(80, space=space, operators=operators).trials]
    assert sum(losses[72:]) / 8 < sum(losses[:8]) / 8 - 0.05
    assert min(losses) < min(losses[:8])


@pytest.mark.slow
@pytest.mark.parametrize("space", [None, SPACE], ids=["any study", "with space"])
def test_trials_are_a_function_of_the_seed(space):
    assert params_of(run(20, space=space)) == params_of(run(20, space=space))
    assert params_of(run(20, space=space)) != params_of(run(20, space=space, seed=1))


def test_maximising_the_negative_is_minimising():
    negative = run(30, lambda trial: -gene_objective(trial), "maximize")
    assert params_of(negative) == params_of(run(30))


def test_parents_are_the_best_of_earlier_generations_alone():
    """Published crossover of two parents: each token comes from the two best of the first eight."""
    study = run(8, parents=2, mutations=0, crossovers=8, operators="published")
    best = sorted(study.trials, key=lambda t: t.value)[:2]
    for _ in range(8):
        trial = study.ask()
        # Told at once, with a value that would make it a parent if generations were ignored.
        study.tell(trial, gene_objective(trial) - 10)
    for trial in study.trials[8:]:
        assert all(
            token in {parent.params[name] for parent in best}
            for name, token in trial.params.items()
        )


def test_local_mutation_redraws_one_to_three_parameters():
    study = run(8, parents=1, mutations=8, crossovers=0, operators="local")
    best = study.best_trial.params
    study.optimize(gene_objective, n_trials=8)
    changed = [
        sum(best[name] != token for name, token in trial.params.items())
        for trial in study.trials[8:]
    ]
    assert set(changed) == {1, 2, 3}


def test_blocks_are_cut_in_their_natural_order():
    """blocks.2 comes before blocks.10, in a study that knows no more than names."""
    names = [f"blocks.{block}.{layer}.A" for block in range(12) for layer in ("fc1", "fc2")]

    def objective(trial):
        return sum(trial.suggest_categorical(name, list("abcdefgh")) == "a" for name in names)

    study = run(16, objective, parents=2, mutations=0, crossovers=8, operators="local")
    one, other = (
        [t.params[name] for name in names]
        for t in sorted(study.trials[:8], key=lambda t: (t.value, t.number))[:2]
    )
    heads_and_tails = [
        head[:cut] + tail[cut:]
        for head, tail in ((one, other), (other, one))
        for cut in range(2, len(names), 2)
    ]
    children = [[t.params[name] for name in names] for t in study.trials[8:]]
    assert all(child in heads_and_tails for child in children)


@pytest.mark.slow
def test_a_second_sampler_goes_on_where_the_first_stopped(tmp_path):
    """State lives in storage: 7 trials here, 5 in another process, as 12 in one go."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    run(7, storage=url, population=4)
    code = (
        "from test_proposing_sampler import run; import optuna;"
        "optuna.logging.set_verbosity(optuna.logging.WARNING);"
        f"run(5, storage={url!r}, population=4)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=__file__.rpartition("/")[0])
    resumed = optuna.load_study(study_name="s", storage=url)
    assert params_of(resumed) == params_of(run(12, population=4))


def test_no_subnet_is_proposed_twice_while_there_are_others():
    """Eight subnets: each once, then repetitions, as study.optimize cannot be told to end."""
    space = tiny_space()

    def objective(trial):
        params = {g.name: trial.suggest_categorical(g.name, g.choices) for g in space.genes}
        return loss_of(space, SubnetConfig.from_params(params))

    study = run(12, objective, population=4, space=space)
    digests = [SubnetConfig.from_params(t.params).digest for t in study.trials]
    assert len(set(digests[:8])) == len(set(digests)) == 8


def test_limits_hold_from_the_first_trial_on():
    study = run(40, space=SPACE, max_params=500)
    counts = [SPACE.n_params(SubnetConfig.from_params(t.params)) for t in study.trials]
    assert max(counts) <= 500


def test_genes_with_one_choice_count_against_the_limit():
    """D and E are fixed here, and expensive."""
    choices = {"A": ["lora_2", "none"], "B": ["vector", "none"], "C": ["none"]}
    space = type(SPACE)(SPACE.layers, {**choices, "D": ["vector"], "E": ["vector"]})

    def objective(trial):
        params = {g.name: trial.suggest_categorical(g.name, g.choices) for g in space.genes}
        return loss_of(space, SubnetConfig.from_params(params))

    limit = space.n_params(space.min_subnet()) + 60
    study = run(24, objective, space=space, max_params=limit)
    counts = [space.n_params(SubnetConfig.from_params(t.params)) for t in study.trials]
    assert max(counts) <= limit


def test_a_limit_needs_costs_and_must_leave_something():
    with pytest.raises(InvalidConfigError, match=r"max_params=500 cannot be met .* give space"):
        EvolutionSampler(max_params=500)
    costly = type(SPACE)(SPACE.layers, {s: ["vector"] for s in "ABCDE"})
    with pytest.raises(InfeasibleLimitError, match="admits no subnet"):
        EvolutionSampler(space=costly, max_params=10)
    with pytest.raises(InvalidConfigError, match=r"got 9 \+ 4 for a population of 8"):
        EvolutionSampler(population=8, mutations=9)


def test_several_objectives_are_refused():
    study = optuna.create_study(
        directions=["minimize", "maximize"], sampler=EvolutionSampler(seed=0, space=SPACE)
    )
    with pytest.raises(ValueError, match="EvolutionSampler cannot be used"):
        study.ask({"x": CategoricalDistribution(["a", "b"])})


def test_choices_of_every_type_evolve():
    """1 and '1' are two choices, and None is one as well."""
    choices = [1, 1.5, False, "1", None]

    def objective(trial):
        picked = [trial.suggest_categorical(f"p{k}", choices) for k in range(6)]
        return -sum(value is None for value in picked)

    study = run(60, objective)
    assert study.best_value < min(t.value for t in study.trials[:8])
    types = Counter(type(value) for params in params_of(study) for value in params.values())
    assert types.keys() == {int, float, bool, str, type(None)}


def test_failed_and_pruned_trials_are_no_parents():
    """Nor are their subnets tried again."""
    study = run(0)

    def objective(trial):
        loss = gene_objective(trial)
        if trial.number == 0:
            raise optuna.TrialPruned
        if trial.number == 1:
            raise RuntimeError("lost node")
        return loss

    study.optimize(objective, n_trials=40, catch=RuntimeError)
    assert [t.state for t in study.trials[:2]] == [TrialState.PRUNED, TrialState.FAIL]
    digests = [SubnetConfig.from_params(t.params).digest for t in study.trials]
    assert len(set(digests)) == 40


def test_fixed_parameters_stay_fixed_while_the_others_evolve():
    """With a space, whose genes are then sampled in part."""
    fixed = {"blocks.0.attn.qkv.A": "vector"}
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        sampler = PartialFixedSampler(fixed, EvolutionSampler(seed=0, population=6, space=SPACE))
    study = optuna.create_study(sampler=sampler)
    study.optimize(gene_objective, n_trials=18)
    assert {t.params["blocks.0.attn.qkv.A"] for t in study.trials} == {"vector"}
    assert len({tuple(t.params.items()) for t in study.trials}) == 18


def test_trials_run_in_threads():
    """Generations then start before the one before is done, and no more is promised than that."""
    study = optuna.create_study(sampler=EvolutionSampler(seed=0, population=6))
    study.optimize(gene_objective, n_trials=24, n_jobs=2)
    assert Counter(t.state for t in study.trials) == {TrialState.COMPLETE: 24}


def test_a_sampler_can_be_sent_to_another_process():
    """Ray and Optuna's own n_jobs copy it."""
    for copied in (
        pickle.loads(pickle.dumps(EvolutionSampler(seed=4, space=SPACE))),
        copy.deepcopy(EvolutionSampler(seed=4, space=SPACE)),
    ):
        studies = []
        for sampler in (copied, EvolutionSampler(seed=4, space=SPACE)):
            study = optuna.create_study(sampler=sampler)
            study.optimize(gene_objective, n_trials=3)
            studies.append(params_of(study))
        assert studies[0] == studies[1]


def test_without_a_seed_samplers_differ_but_keep_to_their_own():
    one, other = EvolutionSampler(), EvolutionSampler()
    draws = []
    for sampler in (one, one, other):
        study = optuna.create_study(sampler=sampler)
        study.optimize(gene_objective, n_trials=2)
        draws.append(params_of(study))
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.slow
def test_ray_tune_searches_with_it(tmp_path):
    """Tune's wrapper asks and tells; saved and restored in between, it goes on all the same."""
    from ray.tune.search.optuna import OptunaSearch

    space = {g.name: CategoricalDistribution(g.choices) for g in SPACE.genes}

    def searcher():
        sampler = EvolutionSampler(seed=0, population=8, parents=3, space=SPACE, max_params=700)
        return OptunaSearch(space, metric="loss", mode="min", sampler=sampler)

    def advance(search, trials):
        suggested = []
        for trial in trials:
            params = search.suggest(str(trial))
            suggested.append(SubnetConfig.from_params(params))
            search.on_trial_complete(str(trial), {"loss": loss_of(SPACE, suggested[-1])})
        return suggested

    straight = advance(searcher(), range(30))
    assert max(SPACE.n_params(subnet) for subnet in straight) <= 700
    losses = [loss_of(SPACE, subnet) for subnet in straight]
    assert min(losses[8:]) < min(losses[:8])

    first = searcher()
    halves = advance(first, range(13))
    first.save(str(tmp_path / "search.pkl"))
    second = searcher()
    second.restore(str(tmp_path / "search.pkl"))
    assert halves + advance(second, range(13, 30)) == straight
