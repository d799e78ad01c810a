"""Spaces that the tests of this folder share."""

from search_spaces import LayerSpec, SearchSpace, load_preset

VIT_B_SHAPES = (
    ("attn.qkv", 768, 2304),
    ("attn.proj", 768, 768),
    ("mlp.fc1", 768, 3072),
    ("mlp.fc2", 3072, 768),
)
VIT_B_LAYERS = tuple(
    LayerSpec(f"blocks.{block}.{name}", i, o, bias=True)
    for block in range(12)
    for name, i, o in VIT_B_SHAPES
)


def vit_b_space(preset: str) -> SearchSpace:
    """The 48 adapted layers of ViT-B/16 with the choices of `preset`."""
    return SearchSpace(VIT_B_LAYERS, load_preset(preset).choices)


def small_space() -> SearchSpace:
    """Two layers of unlike shapes, 1,296 subnets: small enough to list, too large to guess."""
    choices = {
        "A": ["lora_2", "vector", "none"],
        "B": ["lora_1", "constant"],
        "C": ["vector", "none"],
        "D": ["none"],
        "E": ["vector", "constant", "none"],
    }
    return SearchSpace(
        [LayerSpec("blocks.0.fc1", 3, 5, bias=True), LayerSpec("blocks.1.fc2", 4, 2, bias=True)],
        choices,
    )
