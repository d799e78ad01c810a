"""FacT: the changes of all layers as one tensor, factorised (Jie and Deng 2023, arXiv 2212.03145).

Every weight is cut into d x d pieces (qkv into 3, proj 1, fc1 and fc2 4 each for an MLP ratio of
4), and piece p changes by

    dW_p = s U S_p V^T            TT: S_p (r, r) is a parameter of its own
                                  TK: S_p = sum_k P[p, k] C[k], a Tucker core C (r, r, r)

with U and V (d, r) shared by all layers. U starts at zero, so the untrained network is the
backbone; V and S_p start Kaiming-uniform, P and C Xavier-uniform. Legend: `d` the network's width,
`r` rank, `g` and `h` pieces along out_features and in_features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernet.adapted_network import AdaptedNetwork
from supernet.backbones import DEFAULT_PATTERNS
from supernet.errors import BackboneError
from supernet.methods.linear_adapter import LinearAdapter, adapt_linears


class SharedFactors(nn.Module):
    """What all layers share: U and V, of the Tucker form the core too.

    Args:
        width: d.
        rank: r.
        tucker: Whether there is a core C.
        generator: Of the initial values.
    """

    def __init__(self, width: int, rank: int, tucker: bool, generator: torch.Generator) -> None:
        super().__init__()
        v = torch.empty(width, rank)
        nn.init.kaiming_uniform_(v, a=math.sqrt(5), generator=generator)
        self.u = nn.Parameter(torch.zeros(width, rank))
        self.v = nn.Parameter(v)
        if tucker:
            core = torch.empty(rank, rank, rank)
            nn.init.xavier_uniform_(core, generator=generator)
            self.core = nn.Parameter(core)


class FacTLinear(LinearAdapter):
    """A frozen linear layer plus its pieces of the factorised change.

    Args:
        base: The frozen layer; both of its dimensions are multiples of the width.
        factors: Shared by all layers.
        tucker: Which of the two forms.
        scale: s.
        generator: Of the initial values.
    """

    def __init__(
        self,
        base: nn.Linear,
        factors: SharedFactors,
        tucker: bool,
        scale: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__(base)
        width, rank = factors.u.shape
        self.factors, self.scale = factors, scale
        self.pieces = base.out_features // width, base.in_features // width  # (g, h)
        shape = (*self.pieces, rank) if tucker else (*self.pieces, rank, rank)
        own = torch.empty(math.prod(shape[:-1]), rank)
        if tucker:
            nn.init.xavier_uniform_(own, generator=generator)
        else:
            nn.init.kaiming_uniform_(own, a=math.sqrt(5), generator=generator)
        self.own = nn.Parameter(own.reshape(shape).to(base.weight))

    def _cores(self) -> Tensor:
        """S of every piece, (g, h, r, r)."""
        if self.own.ndim == 4:
            return self.own
        return torch.einsum("ghk,krs->ghrs", self.own, self.factors.core)

    def forward(self, x: Tensor) -> Tensor:
        """(..., h d) -> (..., g d)"""
        _, h = self.pieces
        z = x.reshape(*x.shape[:-1], h, -1) @ self.factors.v  # (..., h, r)
        z = torch.einsum("...hs,ghrs->...gr", z, self._cores())
        change = (z @ self.factors.u.T).flatten(-2)  # (..., g d)
        return F.linear(x, self.weight, self.bias) + self.scale * change

    def merged_tensors(self) -> tuple[Tensor, Tensor | None]:
        """W0 + s U S V^T, piece by piece."""
        u, v, cores = self.factors.u.double(), self.factors.v.double(), self._cores().double()
        change = torch.einsum("jr,ghrs,ks->gjhk", u, cores, v).reshape(self.weight.shape)
        return self.weight.double() + self.scale * change, self.bias


@dataclass(frozen=True, kw_only=True)
class _FacT:
    """Factorised changes in every layer that matches.

    Args:
        rank: r.
        scale: s; the paper chooses among 0.01, 0.1, 1, 10 and 100 for each task.
        patterns: Of the layers that are adapted.
    """

    rank: int = 16
    scale: float = 1.0
    patterns: Sequence[str] = DEFAULT_PATTERNS

    tucker: ClassVar[bool]
    merges: ClassVar[bool] = True
    starts_as_backbone: ClassVar[bool] = True
    from_scratch: ClassVar[bool] = False
    size: ClassVar[str | None] = "rank"
    smallest: ClassVar[int] = 1
    largest: ClassVar[int | None] = None

    def adapt(self, backbone: nn.Module, *, seed: int = 0) -> AdaptedNetwork:
        """See `Method.adapt`."""
        network = AdaptedNetwork(backbone)
        width = int(getattr(backbone, "embed_dim", 0))
        generator = torch.Generator().manual_seed(seed)
        factors = SharedFactors(max(width, 1), self.rank, self.tucker, generator)
        factors.to(next(backbone.parameters()))

        def make(name: str, base: nn.Linear) -> FacTLinear:
            if not width or base.in_features % width or base.out_features % width:
                raise BackboneError(
                    f"{name!r} is {base.out_features} x {base.in_features}; FacT needs layers "
                    f"whose dimensions are multiples of one width (here {width or 'none'})"
                )
            return FacTLinear(base, factors, self.tucker, self.scale, generator)

        adapt_linears(network, self.patterns, make)
        return network


@dataclass(frozen=True, kw_only=True)
class FacTTT(_FacT):
    """The tensor-train form: a core of its own for every piece."""

    name: ClassVar[str] = "fact-tt"
    tucker: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class FacTTK(_FacT):
    """The Tucker form: one core for all pieces, mixed by a row of r numbers for each."""

    name: ClassVar[str] = "fact-tk"
    tucker: ClassVar[bool] = True
