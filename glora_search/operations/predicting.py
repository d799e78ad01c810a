"""Predict: an export, in any of its formats, over folders of images. Needs no database, no Ray."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from glora_search.stages.progress import Progress, Silent
from supernet.data import default_workers, find_images
from supernet.errors import ExportError
from supernet.formats import Classifier, load_classifier
from supernet.prediction import Prediction, predictions


def predict(
    export: Path | str,
    images: Iterable[Path | str],
    *,
    top_k: int = 1,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Iterator[Prediction]:
    """A class and its probability for each image, one after the other.

    Export and images are looked up at once; images are decoded, and run over, as the predictions
    are taken. One that does not decode is a prediction with a fault.

    Args:
        export: The folder of an export, or its model.onnx or model.pt2.
        images: Folders, whose images count at any depth; files; patterns such as `*/*.jpg`.
        top_k: How many classes to tell of each image, the most probable first.
        batch_size: Images a forward.
        progress: Where to report to.

    Raises:
        GLoRASearchError: No such export, a damaged one, one that does not say how images are
            prepared, a package that is missing, or a name for which there is no image.
    """
    if top_k < 1 or batch_size < 1:
        raise ExportError(f"top_k and batch_size must be 1 or more; got {top_k} and {batch_size}")
    paths = find_images(images)
    classifier = load_classifier(Path(export))
    return _told(classifier, paths, top_k, batch_size, progress or Silent())


def _told(
    classifier: Classifier,
    paths: Sequence[Path],
    top_k: int,
    batch_size: int,
    progress: Progress,
) -> Iterator[Prediction]:
    found = predictions(
        classifier, paths, top_k=top_k, batch_size=batch_size, workers=default_workers()
    )
    with progress.bar("predicting", len(paths)) as bar:
        for done, prediction in enumerate(found, start=1):
            yield prediction
            bar.update(done)
