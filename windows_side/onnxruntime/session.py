"""Runs an artifact in onnxruntime, as the ONNX model that ``convert`` makes of it, by the names of the manifest."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from toolchain.artifact import Artifact
from toolchain.errors import IncompatibleError, MissingComponentError, UsageError
from toolchain.formats.onnx_names import OnnxNames, kernels_name, onnx_names
from toolchain.formats.plugins import plugins
from toolchain.host.installed import install_line
from toolchain.manifest.models import Manifest, ValueSpec
from windows_side.calling.input_rules import SizeRules, check_fixed_value, check_shape, wrong_input
from windows_side.kernel_files import chosen_folder
from windows_side.onnxruntime.plugin import load_plugin
from windows_side.options import LoadOptions
from windows_side.preflight.admission import admit
from windows_side.preflight.requirements import Runtime

Array = np.ndarray[Any, Any]


class OnnxSession:
    """Runs an artifact's engines in onnxruntime, with numpy arrays on the host.

    State is kept from call to call, and inputs that the model changes are changed in place.

    Attributes:
        manifest: the artifact's manifest.
        device: the GPU, as the options name it.
        session: the ``onnxruntime.InferenceSession``, for callers who know its API.
        names: the ONNX model's names of the manifest's values.
        version: onnxruntime's version.
        kernels_are_cached: whether the cache had a file of compiled kernels for each engine.
    """

    def __init__(self, artifact: Artifact, options: LoadOptions | None = None) -> None:
        """Makes an onnxruntime session of the artifact's ONNX form on one GPU.

        Raises:
            IncompatibleError: the artifact cannot run on this machine or in onnxruntime; the error states why.
            MissingComponentError: onnx, onnxruntime or the plugin is missing.
            UsageError: the options name no GPU that the plugin supports, or choose kernels.
        """
        options = options or LoadOptions()
        if options.kernels != "lazy":
            raise UsageError(
                "onnxruntime's plugin chooses the kernels itself",
                where=f"kernels={options.kernels}",
                remedy="leave it out, or use another runtime",
            )
        admit(artifact, options, Runtime.ONNXRUNTIME)
        try:
            from toolchain.formats.onnx_file import write_onnx
        except ImportError as error:
            raise MissingComponentError(
                f"onnxruntime's model needs the module {error.name}, which is not installed here",
                remedy=install_line("onnx"),
            ) from error
        plugin = load_plugin()
        device = plugin.device(gpu_index(options.device))
        self.manifest: Manifest = artifact.manifest
        self.device = options.device
        with tempfile.TemporaryDirectory(prefix="trtcross-onnx-") as folder:
            # onnxruntime refuses a GPU that the model's metadata does not list; without metadata it does not check.
            written = write_onnx(
                artifact, Path(folder) / "model.onnx", "beside", compatibility=not options.allow_unlisted_gpu
            )
            self.names: OnnxNames = onnx_names(written.source)
            self._state = {
                self.names.state[buffer.name]: _array(artifact, buffer.stored) for buffer in written.source.state
            }
            cache = _cache(options)
            names = [kernels_name(entry) for entry in self.manifest.engines]
            self.kernels_are_cached = cache is not None and all((cache / name).exists() for name in names)
            self.session = _opened(plugin.onnxruntime, device, written.path, cache)
        self.version = str(plugin.onnxruntime.__version__)
        self._after = {
            self.names.state[buffer.name]: self.names.updates[buffer.name]
            for buffer in written.source.state
            if buffer.update
        }
        self._rules = SizeRules(self.manifest.inputs, self.manifest.guards)

    def run_leaves(self, leaves: Sequence[Any]) -> list[Any]:
        """Runs the model on the leaves of a call, in the manifest's order.

        Returns:
            The leaves of the result, in the manifest's order.

        Raises:
            UsageError: an input has the wrong dtype or is outside its range, or sizes violate a guard.
            IncompatibleError: onnxruntime failed.
        """
        feed = self._feed(leaves)
        try:
            results = self.session.run(None, feed)
        except Exception as error:
            raise IncompatibleError(
                f"onnxruntime failed: {error}", where="onnxruntime", remedy="compare with --runtime tensorrt"
            ) from error
        by_name = dict(zip((output.name for output in self.session.get_outputs()), results, strict=True))
        for given, after in self._after.items():
            self._state[given] = by_name[after]
        for given, after in self.names.input_updates.items():
            np.copyto(feed[given], by_name[after])
        return [
            spec.value if name is None else int(by_name[name]) if spec.dtype is None else by_name[name]
            for spec, name in zip(self.manifest.outputs, self.names.outputs, strict=True)
        ]

    def run(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """Runs the model on inputs by the manifest's names, and returns its outputs by name.

        Raises:
            UsageError: an input is missing, or :meth:`run_leaves` refuses one.
            IncompatibleError: onnxruntime failed.
        """
        specs = self.manifest.inputs
        if missing := [spec.name for spec in specs if spec.dtype and spec.name not in feed]:
            raise UsageError(f"the input {missing[0]!r} is missing", where="inputs", remedy="see `trtcross inspect`")
        outputs = self.run_leaves([feed[spec.name] if spec.dtype else spec.value for spec in specs])
        return {spec.name: value for spec, value in zip(self.manifest.outputs, outputs, strict=True)}

    def close(self) -> None:
        """Frees the engines; the plugin then writes the kernels that it compiled."""
        self.session = None

    def __enter__(self) -> OnnxSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _feed(self, leaves: Sequence[Any]) -> dict[str, Array]:
        feed, shapes = dict(self._state), []
        for spec, name, leaf in zip(self.manifest.inputs, self.names.inputs, leaves, strict=True):
            array = None if name is None else _input(spec, leaf)
            shapes.append(() if array is None else array.shape)
            if name is None or array is None:
                check_fixed_value(spec, leaf)
            else:
                feed[name] = array
        self._rules(shapes)
        return feed


def _input(spec: ValueSpec, leaf: Any) -> Array:
    array = np.asarray(leaf)
    if array.dtype.name != spec.dtype:
        raise wrong_input(spec, f"has dtype {array.dtype.name}, not {spec.dtype}")
    check_shape(spec, array.shape)
    return array


def _array(artifact: Artifact, stored: Any) -> Array:
    return np.frombuffer(artifact.read_entry(stored.entry), stored.dtype).reshape(stored.shape).copy()


def gpu_index(device: str) -> int:
    """Returns the index of a GPU that is named as ``cuda:1`` or ``cuda``.

    Raises:
        UsageError: the text does not name a GPU.
    """
    kind, _, index = device.partition(":")
    if kind != "cuda" or not (index or "0").isdecimal():
        raise UsageError(f"{device!r} is no GPU", where="--device", remedy="name one as cuda:0")
    return int(index or 0)


def _cache(options: LoadOptions) -> Path | None:
    """Returns the folder in which the plugin keeps compiled kernels in its own files, or None to keep none."""
    folder = chosen_folder(options.runtime_cache)
    return None if folder is None else folder / "onnxruntime"


def _opened(onnxruntime: Any, device: Any, model: Path, cache: Path | None) -> Any:
    chosen = onnxruntime.SessionOptions()
    chosen.log_severity_level = 3  # errors only: the plugin warns about each GPU on which it was not tested
    chosen.add_provider_for_devices([device], {"nv_runtime_cache_path": str(cache)} if cache else {})
    try:
        return onnxruntime.InferenceSession(str(model), sess_options=chosen)
    except Exception as error:
        raise IncompatibleError(
            f"onnxruntime cannot open the model: {error}",
            where="onnxruntime",
            remedy=f"`trtcross check --runtime onnxruntime`; {plugins().package} holds one release of TensorRT-RTX",
        ) from error
