"""The model card of a Hugging Face repository: a README.md that says what is known, and what is
not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from supernet.formats.facts import ModelFacts

_MOST_CLASSES: Final = 50
_FRONT_MATTER: Final = """---
library_name: timm
pipeline_tag: image-classification
license: unknown
tags:
- timm
- image-classification
- glora
---
"""


def model_card(facts: ModelFacts, record: Mapping[str, Any], files: Iterable[str]) -> str:
    """The text of README.md.

    Args:
        facts: Of the network.
        record: Of the export: what goes into subnet.json. What it does not say is left out.
        files: Others that hold the same network: model.onnx, model.pt2.
    """
    sections = [
        f"# {facts.architecture}, adapted by GLoRA",
        _task(facts, record),
        _classes(facts),
        _figures(record),
        _parameters(record),
        _loading(files),
        _licence(facts),
    ]
    return _FRONT_MATTER + "\n".join(section for section in sections if section)


def _task(facts: ModelFacts, record: Mapping[str, Any]) -> str:
    channels, height, width = facts.preprocessing.input_size
    colour = "grey" if channels == 1 else "RGB"
    lines = [
        "\nImage classification. A plain vision transformer as timm builds it; the adapter that "
        "was searched by glora-search is merged into its weights.\n",
        f"- **Input**: {height} x {width}, {colour}; `config.json` has the preprocessing",
    ]
    if study := record.get("study"):
        lines.append(f"- **Study**: {_code(study)}, {_made_of(record)}")
    for name, title in (("data", "Data"), ("backbone", "Backbone")):
        if told := record.get(name):
            shown = ", ".join(f"{key} {_code(value)}" for key, value in told.items())
            lines.append(f"- **{title}**: {shown}")
    return "\n".join(lines)


def _made_of(record: Mapping[str, Any]) -> str:
    scaled = record.get("calibration")
    end = f", calibrated on val (temperature {scaled['temperature']:.3g})" if scaled else ""
    if averaged := record.get("average_of"):
        kind = "greedy soup" if record.get("soup_of") else "average"
        return f"{kind} of the merged weights of {len(averaged)} subnets{end}"
    tuned = ", trained on after the search" if record.get("finetuning") else ""
    return f"trial {record.get('trial')}{tuned}{end}"


def _classes(facts: ModelFacts) -> str:
    if facts.class_names is None:
        return "\n## Classes\n\nTheir names are not known; logits are numbered from 0."
    names = facts.class_names
    shown = ", ".join(map(_code, names[:_MOST_CLASSES]))
    more = len(names) - _MOST_CLASSES
    rest = f", and {more} more: see `label_names` in `config.json`" if more > 0 else ""
    return f"\n## Classes\n\n{len(names)}, in the order of the logits: {shown}{rest}."


def _figures(record: Mapping[str, Any]) -> str:
    rows = []
    for name, told in (
        ("val", "val: the search chose by it, so it flatters"),
        ("val_in_search", "val, as the search saw it"),
        ("test", "test: read once, for this export"),
    ):
        if found := record.get(name):
            rows.append(
                f"| {told} | {found['n_images']:,} | {100 * found['top1']:.2f} | "
                f"{found['loss']:.4f} |"
            )
    if not rows:
        return ""
    head = ("\n## Figures\n", "| split | images | top-1, % | loss, nats |", "|---|---|---|---|")
    without = [] if record.get("test") else ["\nThe data has no test split: no figure is unbiased."]
    return "\n".join([*head, *rows, *without])


def _parameters(record: Mapping[str, Any]) -> str:
    counts = record.get("n_params")
    if not counts:
        return ""
    return (
        f"\n## Parameters\n\n{counts['adapter']:,} of the adapter and {counts['head']:,} of the "
        f"head were trained; the merged network has {counts['merged_model']:,}. "
        "`adapter.safetensors` has the trained ones alone, `subnet.json` the configuration."
    )


def _loading(files: Iterable[str]) -> str:
    others = ", ".join(f"`{name}`" for name in files)
    return (
        "\n## How to load it\n\n"
        "```python\n"
        "import timm\n"
        "from timm.data import create_transform, resolve_model_data_config\n\n"
        '# "hf-hub:USER/NAME" from the hub, "local-dir:FOLDER" from a folder\n'
        'model = timm.create_model("hf-hub:USER/NAME", pretrained=True).eval()\n'
        "transform = create_transform(**resolve_model_data_config(model), is_training=False)\n"
        "```" + (f"\n\nThe same network is in {others}." if others else "")
    )


def _licence(facts: ModelFacts) -> str:
    return (
        "\n## Licence\n\n"
        f"Unknown. These weights are made of pretrained weights of {_code(facts.architecture)}, "
        "and of training images; the licences of both hold for them, and glora-search knows "
        "neither. A `license` in `config.json` is what timm says of its own weights of that "
        "architecture, which need not be those. Find out before you publish, and replace this "
        "section and `license` above.\n"
    )


def _code(value: object) -> str:
    """A value as inline code, on one line: names may hold what Markdown would take for marks."""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{' '.join(text.replace('`', chr(39)).split())}`"
