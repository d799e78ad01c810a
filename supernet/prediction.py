"""Run an exported network over image files: a class and a probability for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from supernet.data import decoded_batches
from supernet.errors import DataError, ExportError
from supernet.formats import Classifier


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a network makes of an image.

    Args:
        path: The image's file.
        classes: (name, probability), the most probable first; none where there is a fault.
        fault: Why there are no classes: the image does not decode. None where it does.
    """

    path: Path
    classes: tuple[tuple[str, float], ...] = ()
    fault: str | None = None


def predictions(
    classifier: Classifier,
    paths: Sequence[Path],
    *,
    top_k: int = 1,
    batch_size: int = 64,
    workers: int = 1,
) -> Iterator[Prediction]:
    """One for each file, in order. Images are prepared as the export says.

    Args:
        classifier: What `load_classifier` gave.
        paths: The files.
        top_k: So many classes an image, or all where there are fewer.
        batch_size: Images a forward.
        workers: Threads that decode.

    Raises:
        ExportError: The network's logits are no numbers, or not as many as it has class names.
    """
    facts = classifier.facts
    decoding = decoded_batches(paths, facts.preprocessing, batch_size=batch_size, workers=workers)
    for batch in decoding:
        images = [decoded for _, decoded in batch if not isinstance(decoded, DataError)]
        found: Iterator[tuple[tuple[str, float], ...]] = iter(())
        if images:
            logits = classifier.run(facts.preprocessing.normalise(torch.stack(images)))
            if facts.class_names is not None and logits.shape[1] != len(facts.class_names):
                raise ExportError(
                    f"the network has {logits.shape[1]} logits, but its export names "
                    f"{len(facts.class_names)} classes"
                )
            if not logits.isfinite().all():
                raise ExportError("the network's logits are not all finite numbers")
            best = logits.double().softmax(1).topk(min(top_k, logits.shape[1]), dim=1)
            rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            found = (
                tuple((facts.class_name(k), p) for k, p in zip(labels, shares, strict=True))
                for labels, shares in rows
            )
        for path, decoded in batch:
            if isinstance(decoded, DataError):
                yield Prediction(path=path, fault=str(decoded))
            else:
                yield Prediction(path=path, classes=next(found))
