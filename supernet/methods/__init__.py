"""Methods that adapt a backbone, one file each, behind one protocol.

`METHODS["lora"]().adapt(backbone)` gives an `AdaptedNetwork`: a module to train, whose `merge()` is
a plain network where the method allows it.
"""

from collections.abc import Callable
from typing import Final

from supernet.methods.adaptformer import AdaptFormer
from supernet.methods.fact import FacTTK, FacTTT
from supernet.methods.glora import GLoRA
from supernet.methods.lora import LoRA
from supernet.methods.method import Method, sized
from supernet.methods.own_weights import BitFit, FromScratch, FullFineTuning, LinearProbe
from supernet.methods.repadapter import RepAdapter
from supernet.methods.ssf import SSF
from supernet.methods.vlora import VLoRA
from supernet.methods.vpt import VPTDeep, VPTShallow

_METHODS: Final[tuple[Callable[[], Method], ...]] = (
    *(LinearProbe, FullFineTuning, BitFit),
    *(LoRA, SSF, FacTTT, FacTTK, RepAdapter),
    *(VPTShallow, VPTDeep, AdaptFormer),
    *(FromScratch, VLoRA, GLoRA),
)
METHODS: Final = {method().name: method for method in _METHODS}
"""Every method by its name on the command line, with its published settings."""

__all__ = [
    "METHODS",
    "SSF",
    "AdaptFormer",
    "BitFit",
    "FacTTK",
    "FacTTT",
    "FromScratch",
    "FullFineTuning",
    "GLoRA",
    "LinearProbe",
    "LoRA",
    "Method",
    "RepAdapter",
    "VLoRA",
    "VPTDeep",
    "VPTShallow",
    "sized",
]
