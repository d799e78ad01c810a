"""The network: GLoRA layers, a weight-sharing supernet, its data, training, evaluation, export.

Needs torch, timm, numpy and safetensors; runs on a GPU machine that has neither Ray nor Optuna.
"""

from supernet.adapter import Adapter
from supernet.adapter_bank import AdapterBank
from supernet.averaging import Team
from supernet.backbones import DEFAULT_PATTERNS, Architecture, find_layers
from supernet.data import Preprocessing, Split, TensorSplit
from supernet.evaluation import (
    Evaluation,
    NonFiniteLossError,
    Precision,
    evaluate_model,
)
from supernet.layer import GLoRALinear, Storage
from supernet.network import Supernet
from supernet.recipes import Design, Recipe
from supernet.subnet_evaluator import SubnetEvaluator, evaluate_subnets
from supernet.training import Checkpointing, EpochEnd, train_network, train_supernet

__all__ = [
    "DEFAULT_PATTERNS",
    "Adapter",
    "AdapterBank",
    "Architecture",
    "Checkpointing",
    "Design",
    "EpochEnd",
    "Evaluation",
    "GLoRALinear",
    "NonFiniteLossError",
    "Precision",
    "Preprocessing",
    "Recipe",
    "Split",
    "Storage",
    "SubnetEvaluator",
    "Supernet",
    "Team",
    "TensorSplit",
    "evaluate_model",
    "evaluate_subnets",
    "find_layers",
    "train_network",
    "train_supernet",
]
