"""A stand-in for onnxruntime by ONNX's own reference evaluator; engines are functions of numpy arrays.

NVIDIA's plugin registers only where there is a driver. Names, dtypes, sizes and state between the manifest and the
engines are our code: this stand-in evaluates the very model that is written, by ONNX's definitions of its operators.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

# Computes an engine's outputs from its input arrays, in the order of its bindings.
Function = Callable[..., tuple[Any, ...]]


class ReferenceRuntime:
    """A module ``onnxruntime`` with a plugin that supports one GPU.

    Attributes:
        functions: what engines compute, by the beginning of an engine's digest, as the nodes name their partitions.
        gpus: the number of GPUs that the plugin supports.
        refusal: the error that registering the plugin raises, or None.
        options: the options of the last session's provider.
    """

    name = "nv_tensorrt_rtx"
    __version__ = "1.32.0"

    def __init__(self) -> None:
        self.functions: dict[str, Function] = {}
        self.gpus = 1
        self.refusal: Exception | None = None
        self.options: dict[str, str] = {}
        self.model: Any = None

    def register_execution_provider_library(self, name: str, path: str) -> None:
        if self.refusal:
            raise self.refusal

    def get_ep_devices(self) -> list[Any]:
        own = [SimpleNamespace(ep_name=self.name) for _ in range(self.gpus)]
        return [SimpleNamespace(ep_name="CPUExecutionProvider"), *own]

    def SessionOptions(self) -> Any:  # noqa: N802 - onnxruntime's
        runtime = self

        class Options:
            log_severity_level = 2

            def add_provider_for_devices(self, devices: list[Any], options: dict[str, str]) -> None:
                assert [device.ep_name for device in devices] == [runtime.name]
                runtime.options = options

        return Options()

    def InferenceSession(self, path: str, sess_options: Any) -> Any:  # noqa: N802 - onnxruntime's
        self.model = onnx.load(path, load_external_data=False)
        return _Session(self.model, self.functions)


class _Session:
    def __init__(self, model: Any, functions: dict[str, Function]) -> None:
        class EPContext(OpRun):
            op_domain = "com.microsoft"

            def _run(self, *inputs: Any, partition_name: str = "", **_: Any) -> tuple[Any, ...]:
                return tuple(functions[partition_name.removeprefix("trtcross_")](*inputs))

        self._evaluator = ReferenceEvaluator(model, new_ops=[EPContext])
        self._outputs = [SimpleNamespace(name=value.name) for value in model.graph.output]

    def get_outputs(self) -> list[Any]:
        return self._outputs

    def run(self, names: None, feed: dict[str, Any]) -> list[Any]:
        return list(self._evaluator.run(names, feed))
