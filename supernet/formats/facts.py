"""What an exported network says of itself: how images are prepared for it, and its classes.

Each format carries all of it, so that whoever runs the network has nothing to guess.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from supernet.data import Preprocessing
from supernet.errors import DataError, ExportError

_PREPARED = tuple(field.name for field in fields(Preprocessing))


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """How images become logits, and logits classes.

    Args:
        architecture: timm's name of it.
        preprocessing: From an image to the network's input.
        class_names: In the order of the logits; None where they are not known.
    """

    architecture: str
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None

    def class_name(self, label: int) -> str:
        """The name of a class, or its number where no names are known."""
        return str(label) if self.class_names is None else self.class_names[label]

    def to_texts(self) -> dict[str, str]:
        """Each fact as JSON, by its name: what ONNX and torch.export keep beside a network."""
        facts = {
            "architecture": self.architecture,
            **asdict(self.preprocessing),
            "class_names": self.class_names,
        }
        return {name: json.dumps(value) for name, value in facts.items()}

    @classmethod
    def from_texts(cls, texts: Mapping[str, str], origin: str) -> Self:
        """What `to_texts` gave.

        Args:
            texts: Others than the facts are passed over.
            origin: The file, for messages.

        Raises:
            ExportError: One is missing, or is not what it should be.
        """
        try:
            found = {name: json.loads(text) for name, text in texts.items() if name in _NAMES}
        except ValueError as error:
            raise ExportError(f"{origin} has metadata that is not JSON: {error}") from error
        return cls._made(found, origin)

    @classmethod
    def from_timm_config(cls, config: Mapping[str, Any], origin: str) -> Self:
        """The facts in a config.json as timm writes it.

        Args:
            config: The document.
            origin: The file, for messages.

        Raises:
            ExportError: As in `from_texts`.
        """
        found = {name: config[name] for name in ("architecture",) if name in config}
        found |= {"class_names": config.get("label_names"), **config.get("pretrained_cfg", {})}
        return cls._made(found, origin)

    @classmethod
    def _made(cls, found: Mapping[str, Any], origin: str) -> Self:
        if missing := [name for name in _NAMES if name not in found]:
            raise ExportError(
                f"{origin} does not say {', '.join(missing)}, and that is not guessed; accepted "
                "are exports of glora-search, as they were written"
            )
        names = found["class_names"]
        try:
            return cls(
                architecture=found["architecture"],
                preprocessing=Preprocessing(**{name: found[name] for name in _PREPARED}),
                class_names=None if names is None else tuple(map(str, names)),
            )
        except (DataError, TypeError, ValueError) as error:
            raise ExportError(f"{origin} has metadata that is not understood: {error}") from error


_NAMES = ("architecture", *_PREPARED, "class_names")
