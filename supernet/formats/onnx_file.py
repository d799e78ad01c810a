"""ONNX: one file for onnxruntime and everything else that reads ONNX.

Written by torch's exporter that starts from torch.export, without gradients. It is the one that
torch maintains, its batch size is a symbol that is checked and not a number that was traced, and it
writes every family of transformers that the tests know. The older one, which traces, is deprecated,
and fails on EVA's attention.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from supernet.errors import ExportError
from supernet.formats.facts import ModelFacts
from supernet.formats.sample import Run

_MOST_BYTES: Final = 2**31 - 2**24  # what one protobuf can hold, less room for the graph


def write_onnx(network: nn.Module, example: Tensor, facts: ModelFacts, path: Path) -> None:
    """Write a network with its weights into one file, with the facts as its metadata.

    Args:
        network: In evaluation mode, on the CPU.
        example: Two images, float32 (2, c, h, w); the file takes any number.
        facts: What to say of it.
        path: The file.

    Raises:
        ExportError: The weights are more than one file can hold.
    """
    n_bytes = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    if n_bytes > _MOST_BYTES:
        raise ExportError(
            f"the weights take {n_bytes:,} bytes, and one ONNX file holds {_MOST_BYTES:,}; "
            "choose the format pt2"
        )
    batch = torch.export.Dim("batch")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecations within torch's own exporter
        program = torch.onnx.export(
            network,
            (example,),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: batch},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None, "it is, with dynamo"
    program.model.metadata_props.update(facts.to_texts())
    program.save(path, external_data=False)


def load_onnx(path: Path) -> tuple[Run, ModelFacts]:
    """A network that onnxruntime runs on the CPU, with as many threads as torch would."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    facts = ModelFacts.from_texts(session.get_modelmeta().custom_metadata_map, str(path))

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        return torch.from_numpy(logits)

    return run, facts
