"""The fast path of a training step: its values and gradients are those of the plain formula."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from supernet.adapted_linear import Choice, Form, adapted_linear

FORMS: tuple[Form, ...] = ("low-rank", "vector", "constant", "none")
ALL_FORMS = list(itertools.product(FORMS, FORMS, (True, False)))
N_IN, N_OUT, RANK, STORED_RANK = 6, 9, 2, 3
SHAPE = (2, 5, N_IN)  # (b, n, i)


@dataclass(frozen=True)
class Problem:
    """An input, a frozen layer, and what is chosen for A to E."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    choices: tuple[Choice, ...]

    @property
    def leaves(self) -> list[Tensor]:
        return [self.x, *(tensor for choice in self.choices for tensor in choice.stored)]


def choice(support: str, form: Form, leaf: Callable[..., Tensor], rank: int) -> Choice:
    """As the entangled storage has it: a vector is the first column of `down`."""
    if form == "none":
        return Choice()
    if support in "DE":
        return Choice(form, 0, (leaf(N_OUT),))
    down = leaf(N_IN if support == "C" else N_OUT, STORED_RANK)
    if form == "low-rank":
        return Choice(form, rank, (down, leaf(STORED_RANK, 1 if support == "C" else N_IN)))
    return Choice(form, 0, (down,))


def problem(
    a: Form,
    b: Form,
    bias: bool,
    *,
    c: Form = "none",
    d: Form = "none",
    e: Form = "none",
    rank: int = RANK,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
) -> Problem:
    generator = torch.Generator().manual_seed(5)

    def leaf(*shape: int) -> Tensor:
        value = torch.randn(shape, generator=generator, dtype=torch.float64)
        return value.to(device, dtype).requires_grad_()

    forms: dict[str, Form] = {"A": a, "B": b, "C": c, "D": d, "E": e}
    return Problem(
        leaf(*SHAPE),
        leaf(N_OUT, N_IN).requires_grad_(False),
        leaf(N_OUT).requires_grad_(False) if bias else None,
        tuple(choice(support, form, leaf, rank) for support, form in forms.items()),
    )


def fast(x: Tensor, given: Problem) -> Tensor:
    return adapted_linear(x, given.weight, given.bias, given.choices)


def plain(x: Tensor, given: Problem) -> Tensor:
    """The formulas as they read, for autograd: everything dense, with dense gradients."""
    zero = given.weight.new_zeros(())

    def dense(choice: Choice) -> Tensor:
        if choice.form == "none":
            return zero
        if choice.form == "low-rank":
            down, up = choice.stored
            return down[:, : choice.rank] @ up[: choice.rank]
        (stored,) = choice.stored
        if choice.form == "constant":
            return stored.flatten()[0]
        return stored[:, :1] if stored.ndim == 2 else stored

    a, b, c, d, e = (dense(choice) for choice in given.choices)
    shift = e + ((given.weight @ c).squeeze(1) if c.ndim else zero)
    if given.bias is not None:
        shift = given.bias + given.bias * d + shift
    return F.linear(x, given.weight + given.weight * a + b, shift.expand(N_OUT))


def gradients(
    linear: Callable[[Tensor, Problem], Tensor],
    given: Problem,
    origin: Callable[[Tensor], Tensor] = lambda x: x,
) -> tuple[Tensor, list[Tensor]]:
    """The output, and the gradients of all leaves of a loss in which no two entries are alike."""
    y = linear(origin(given.x), given)
    weights = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).reshape(y.shape).sin()
    return y, list(torch.autograd.grad((y * weights.to(y)).sum(), given.leaves))


@pytest.mark.slow
@pytest.mark.parametrize(("a", "b", "bias"), ALL_FORMS)
def test_gradients_are_those_of_finite_differences(a: Form, b: Form, bias: bool) -> None:
    """Not against another derivation, but against the forward pass."""
    given = problem(a, b, bias, c="low-rank", d="vector" if bias else "none", e="constant")

    def function(x: Tensor, *stored: Tensor) -> Tensor:
        rest = iter(stored)
        mine = [c._replace(stored=tuple(next(rest) for _ in c.stored)) for c in given.choices]
        return adapted_linear(x, given.weight, given.bias, mine)

    assert torch.autograd.gradcheck(function, given.leaves)


@pytest.mark.parametrize("rank", [1, RANK, STORED_RANK])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("c", ["low-rank", "vector", "none"])
@pytest.mark.parametrize("d", ["vector", "constant", "none"])
@pytest.mark.parametrize("e", ["vector", "constant", "none"])
@pytest.mark.parametrize("a", ["vector", "none"])
def test_the_bias_adapts_as_the_formula_says(
    a: Form, c: Form, d: Form, e: Form, bias: bool, rank: int
) -> None:
    """With a vector for A besides, whose gradient has the bias in it."""
    given = problem(a, "none", bias, c=c, d=d if bias else "none", e=e, rank=rank)
    y, mine = gradients(fast, given)
    expected, theirs = gradients(plain, given)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(mine, theirs)


ORIGINS: dict[str, Callable[[Tensor], Tensor]] = {
    "a leaf": lambda x: x,
    "GELU": F.gelu,
    "GELU, tanh": lambda x: F.gelu(x, approximate="tanh"),
    "LayerNorm": lambda x: F.layer_norm(
        x, (N_IN,), torch.linspace(0.5, 2, N_IN).to(x), torch.linspace(-1, 1, N_IN).to(x)
    ),
    "LayerNorm without bias": lambda x: F.layer_norm(
        x, (N_IN,), torch.linspace(0.5, 2, N_IN).to(x)
    ),
    "LayerNorm without weight": lambda x: F.layer_norm(x, (N_IN,)),
    "another operation": torch.tanh,
    "a view of GELU": lambda x: F.gelu(x).flip(1),
}


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize(("a", "b", "bias"), ALL_FORMS)
def test_the_fast_path_equals_the_formula(a: Form, b: Form, bias: bool, origin: str) -> None:
    """Also where x is not kept, but made again from what GELU or LayerNorm keep; and what a smaller
    rank does not use has a gradient of zero.
    """
    given = problem(a, b, bias, e="vector")
    y, mine = gradients(fast, given, ORIGINS[origin])
    expected, theirs = gradients(plain, given, ORIGINS[origin])
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("origin", ["a leaf", "GELU", "LayerNorm"])
@pytest.mark.parametrize(("a", "b", "bias"), ALL_FORMS)
def test_under_autocast_it_rounds_no_more_than_the_formula(
    a: Form, b: Form, bias: bool, origin: str
) -> None:
    """bf16 has 8 bits: both are compared with float64, and mine may not be much further away."""
    given = problem(a, b, bias, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y, mine = gradients(fast, given, ORIGINS[origin])
        plain_y, rivals = gradients(plain, given, ORIGINS[origin])
    assert y.dtype == plain_y.dtype == torch.bfloat16
    assert [g.dtype for g in mine] == [g.dtype for g in rivals]
    true_y, true = gradients(plain, problem(a, b, bias), ORIGINS[origin])
    for result, rival, truth in zip([y, *mine], [plain_y, *rivals], [true_y, *true], strict=True):
        error, allowed = (
            (other.double() - truth).norm() / truth.norm() for other in (result, rival)
        )
        # a gradient of one number is a sum in which much cancels: its relative error is larger
        assert error <= 2 * allowed + (2**-8 if truth.count_nonzero() > 1 else 2**-4)


def kept_by(y: Tensor) -> set[int]:
    """Addresses of what the graph keeps for the gradient of `y`."""
    node: Any = y.grad_fn
    return {tensor.data_ptr() for tensor in node.saved_tensors if tensor is not None}


@pytest.mark.parametrize("origin", ["GELU", "LayerNorm"])
def test_what_an_operation_keeps_already_is_shared(origin: str) -> None:
    """The output of GELU and LayerNorm is not kept for a gradient that can be had without it."""
    given = problem("low-rank", "low-rank", True)
    hidden = ORIGINS[origin](given.x)
    kept = kept_by(fast(hidden, given))
    assert hidden.data_ptr() not in kept
    assert given.x.data_ptr() in kept


@pytest.mark.parametrize("b", ["vector", "constant", "none"])
@pytest.mark.parametrize("a", ["vector", "none"])
def test_x_is_not_kept_where_no_gradient_needs_it(a: Form, b: Form) -> None:
    given = problem(a, b, True, e="vector")
    assert given.x.data_ptr() not in kept_by(fast(given.x, given))


def test_the_output_may_be_written_to() -> None:
    """EVA adds its bias to the output in place."""
    given = problem("vector", "low-rank", True)
    y = fast(given.x, given)
    y += 1
    y.sum().backward()
    assert given.x.grad is not None


def test_a_frozen_input_gets_no_gradient() -> None:
    """The first adapted layer of a backbone: nothing before it trains."""
    given = problem("constant", "low-rank", True)
    given.x.requires_grad_(False)
    fast(given.x, given).sum().backward()
    assert given.x.grad is None
    assert all(leaf.grad is not None for leaf in given.leaves[1:])


def test_weights_that_changed_after_the_forward_pass_are_told() -> None:
    """As autograd has it: gradients of other values than those that were used are refused."""
    given = problem("low-rank", "none", True)
    y = fast(given.x, given).sum()
    with torch.no_grad():
        given.choices[0].stored[0].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


@pytest.mark.gpu
@pytest.mark.parametrize(("a", "b", "bias"), ALL_FORMS)
def test_a_gpu_computes_the_same(a: Form, b: Form, bias: bool) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    y, mine = gradients(fast, problem(a, b, bias, device="cuda"), F.gelu)
    expected, theirs = gradients(plain, problem(a, b, bias), F.gelu)
    torch.testing.assert_close(y.cpu(), expected)
    torch.testing.assert_close([g.cpu() for g in mine], theirs)
