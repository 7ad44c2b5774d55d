"""The checkpoint's side for ONNX: initializers as the onnx package reads them."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.numpy_helper

from exporter.prove.formats import plain
from exporter.prove.values import Matrix


class OnnxTensors:
    """The initializers of the model at ``path``; external ones are read one at a time."""

    def __init__(self, path: Path) -> None:
        self._folder = str(path.parent)
        graph = onnx.load(path, load_external_data=False).graph
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}

    def matrix(self, name: str) -> Matrix | None:
        """The initializer called ``name``, as it lies in the file, or None."""
        if name not in self._tensors:
            return None
        # to_array leaves what it read in the tensor that it is given.
        tensor = onnx.TensorProto()
        tensor.CopyFrom(self._tensors[name])
        return plain(onnx.numpy_helper.to_array(tensor, self._folder))
