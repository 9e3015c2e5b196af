"""Chooses the names of an ONNX model's values.

NVIDIA's plugin binds an engine's tensors by the names of its node's values; where a name is not one of the engine's
bindings, it silently binds the first value. So the values around an engine must have the names of its bindings. Nodes
that only rename would not help: onnxruntime removes them before the plugin sees the model. For the same reason, a view
that changes nothing is not a value of its own here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toolchain.errors import IncompatibleError
from toolchain.formats.source import Source
from toolchain.graph.program import EngineStep, ViewStep
from toolchain.graph.views import KINDS
from toolchain.manifest.models import EngineEntry


@dataclass(frozen=True)
class OnnxNames:
    """The names of the artifact's values in the ONNX model.

    Attributes:
        values: the names, by the values' names in the graph.
        inputs: the inputs in the manifest's order, None for one that is no tensor.
        outputs: the outputs in the manifest's order, None for one that is a constant.
        state: the input for each buffer, by the buffer's name.
        updates: the output with the new value of each buffer that calls change, by the buffer's name.
        input_updates: the output with the new value of each input that calls change, by the input's name in ONNX.
        copies: ``(value, name)`` of each output that copies a value with a different name.
        casts: ``(value, dtype, name)`` of each output that is the cast of a value.
    """

    values: Mapping[str, str]
    inputs: tuple[str | None, ...]
    outputs: tuple[str | None, ...]
    state: Mapping[str, str]
    updates: Mapping[str, str]
    input_updates: Mapping[str, str]
    copies: tuple[tuple[str, str], ...]
    casts: tuple[tuple[str, str, str], ...]


def onnx_names(source: Source) -> OnnxNames:
    """Chooses a name for every value of the artifact's program.

    Raises:
        IncompatibleError: engines need different names for one value, or one name for two; or ONNX forbids a name.
    """
    return _Namer(source).names()


def kernels_name(entry: EngineEntry) -> str:
    """Returns the name of the plugin's file of an engine's compiled kernels."""
    return f"trtcross_{entry.sha256[:32]}"


class _Namer:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._program = source.program
        self._values: dict[str, str] = {}
        self._taken: dict[str, str] = {}
        self._given: set[str] = set()
        self._copies: list[tuple[str, str]] = []
        self._casts: list[tuple[str, str, str]] = []
        # The value of each view that changes nothing.
        self._same: dict[str, str] = {}
        for step in self._program.steps:
            if isinstance(step, ViewStep) and KINDS[step.new_shape] == "same":
                self._same[step.output] = self._root(step.tensor)

    def names(self) -> OnnxNames:
        program, manifest = self._program, self._source.manifest
        self._name_bindings()
        inputs = []
        for value, spec in zip(program.inputs, manifest.inputs, strict=True):
            inputs.append(None if value is None else self._named(value, spec.name))
            self._given.add(value or "")
        for cast in program.casts:
            self._named(cast.output, cast.output)
        state = {}
        for buffer in self._source.state:
            state[buffer.name] = self._named(buffer.value, buffer.name)
            self._given.add(buffer.value)
        outputs = tuple(
            None if output.name is None else self._output(output.name, spec.name, output.cast)
            for output, spec in zip(program.outputs, manifest.outputs, strict=True)
        )
        updates = {b.name: self._output(b.update, f"{b.name}.after") for b in self._source.state if b.update}
        changed = {
            str(inputs[index]): self._output(value, f"{manifest.inputs[index].name}.after")
            for index, value in program.input_updates
        }
        for step in program.steps:
            if not isinstance(step, EngineStep):
                self._named(step.output, step.output)
        values = {**self._values, **{view: self._values[value] for view, value in self._same.items()}}
        copies, casts = tuple(self._copies), tuple(self._casts)
        return OnnxNames(values, tuple(inputs), outputs, state, updates, changed, copies, casts)

    def _root(self, value: str) -> str:
        return self._same.get(value, value)

    def _name_bindings(self) -> None:
        for step in self._program.engine_steps:
            entry = self._source.manifest.engines[step.engine]
            values = [*step.inputs, *step.outputs]
            bindings = [*entry.inputs, *entry.outputs]
            for view, binding in zip(values, bindings, strict=True):
                value = self._root(view)
                named = self._values.get(value)
                if named is not None and named != binding.name:
                    raise self._refusal(
                        f"one value is {named!r} to one engine and {binding.name!r} to another; ONNX allows one"
                    )
                if named is None:
                    self._bind(value, binding.name)

    def _named(self, value: str, name: str) -> str:
        """Returns the value's name; a value without one gets ``name``."""
        value = self._root(value)
        if value not in self._values:
            self._take(value, name)
        return self._values[value]

    def _bind(self, value: str, name: str) -> None:
        """Gives a value the name of an engine's binding, which cannot be replaced by a different one."""
        if (other := self._taken.get(name)) is not None:
            raise self._refusal(f"two values are {name!r} to engines, {other} and {value}; ONNX needs a name for each")
        self._take(value, name)

    def _output(self, value: str, name: str, cast: str | None = None) -> str:
        """Returns the name of an output of the model; a value that is an input or an output already is copied."""
        value = self._root(value)
        if cast:
            name = self._take(f"{value}->{name}", name)
            self._casts.append((self._named(value, value), cast, name))
            return name
        if value in self._given:
            name = self._take(f"{value}->{name}", name)
            self._copies.append((self._values[value], name))
            return name
        self._given.add(value)
        return self._named(value, name)

    def _take(self, value: str, name: str) -> str:
        """Gives a value the name, with underscores behind it if the name is taken."""
        if problem := _problem(name):
            raise IncompatibleError(
                f"the value {value} cannot have the name {name!r} in ONNX: {problem}",
                where=self._source.where,
                remedy="rename it in the model, and build again",
            )
        while name in self._taken:
            name += "_"
        self._values[value], self._taken[name] = name, value
        return name

    def _refusal(self, problem: str) -> IncompatibleError:
        return IncompatibleError(
            problem,
            where=self._source.where,
            remedy="build it again with this release of trtcross, whose engines have one name for each value; or as "
            "one engine (--require-full-coverage)",
        )


def _problem(name: str) -> str | None:
    """Describes why ONNX cannot use a name; None if it can. onnxruntime accepts every other character, dots too."""
    if not name:
        return "it is empty, which means no value in ONNX"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "it is not Unicode text"
    return None
