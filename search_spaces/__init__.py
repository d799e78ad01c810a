"""What may be chosen: tokens, layer and subnet configurations, search spaces. Standard library
only.
"""

from search_spaces.configs import LayerConfig, SubnetConfig
from search_spaces.draws import NO_LIMITS, ParamLimits
from search_spaces.errors import GLoRASearchError, InfeasibleLimitError, InvalidConfigError
from search_spaces.presets import Preset, load_preset, preset_names
from search_spaces.space import Gene, Genome, SearchSpace
from search_spaces.tokens import SUPPORTS, LayerSpec, check_token, rank_of, token_params

__all__ = [
    "NO_LIMITS",
    "SUPPORTS",
    "GLoRASearchError",
    "Gene",
    "Genome",
    "InfeasibleLimitError",
    "InvalidConfigError",
    "LayerConfig",
    "LayerSpec",
    "ParamLimits",
    "Preset",
    "SearchSpace",
    "SubnetConfig",
    "check_token",
    "load_preset",
    "preset_names",
    "rank_of",
    "token_params",
]
