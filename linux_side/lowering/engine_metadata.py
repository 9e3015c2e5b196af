"""The metadata field of engine info: symbolic shapes as a pickle, which is the form that stock readers expect.

Upstream pickles its whole settings object. Our pickle contains only what Torch-TensorRT's fake kernel reads
(``dynamo/runtime/meta_ops/register_meta_ops.py``), and only globals on an allow-list.
"""

from __future__ import annotations

import base64
import pickle  # writing only
from typing import Any

import torch

from toolchain.engine.metadata_allowlist import unknown_in_pickle
from toolchain.errors import BuildFailedError


def encode_metadata(partition: torch.fx.GraphModule) -> str:
    """Returns the metadata pickle of a partition, in base64.

    Raises:
        BuildFailedError: a shape needs a global that is not on the allow-list.
    """
    outputs = partition.graph.output_node().args[0]
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    document = {
        "inout_symexprs": {
            "inputs": [
                {**_shape(node.meta["val"]), "name": node.name}
                for node in partition.graph.nodes
                if node.op == "placeholder"
            ],
            "outputs": [_shape(node.meta["val"]) for node in outputs],
        },
        "output_tensors_are_unowned": False,
    }
    text = base64.b64encode(pickle.dumps(document, protocol=4)).decode("ascii")
    if unknown := unknown_in_pickle(text):
        raise BuildFailedError(
            f"an engine's shapes need {unknown}, which is not allowed in an artifact",
            where="engine metadata",
            remedy="make the model's dynamic sizes simpler expressions of its input sizes",
        )
    return text


def _shape(value: Any) -> dict[str, Any]:
    if isinstance(value, torch.Tensor):
        sizes = [size.node.expr if isinstance(size, torch.SymInt) else int(size) for size in value.shape]
        return {"shape_exprs": sizes, "dtype": value.dtype}
    dtype = torch.float64 if isinstance(value, (float, torch.SymFloat)) else torch.int64
    return {"shape_exprs": [], "dtype": dtype, "is_scalar": True}
