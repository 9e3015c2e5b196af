"""The source of a converted file: the artifact's manifest and graph, which the file contains to the byte.

Everything else in a converted file follows from them and from the engines. So it can be made again from its own parts
and compared byte for byte, and the artifact's signature, which covers the manifest's bytes, holds for it too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from toolchain.artifact import Artifact
from toolchain.container.entry_names import GRAPH_ENTRY, MANIFEST_ENTRY, is_tensor_list
from toolchain.errors import IncompatibleError, MalformedArtifactError
from toolchain.graph.document import parse_graph
from toolchain.graph.program import Program, read_program
from toolchain.graph.skeleton import engine_token
from toolchain.graph.tensors import StoredTensor, stored_tensors
from toolchain.graph.torch_free import listed, operators_for_torch
from toolchain.io.strict_json import load_json
from toolchain.limits import GRAPH, MANIFEST, TENSOR_LIST
from toolchain.manifest.models import FileEntry, Manifest
from toolchain.manifest.reading import parse_manifest


@dataclass(frozen=True)
class State:
    """A buffer that the model keeps from call to call.

    Attributes:
        name: its name in the model.
        value: its value's name in the graph.
        update: the name of the value that it has after a call; None if calls do not change it.
        stored: where its elements are.
        file: the size and digest of the entry that holds them.
    """

    name: str
    value: str
    update: str | None
    stored: StoredTensor
    file: FileEntry


@dataclass(frozen=True)
class Source:
    """The parts of an artifact that describe its engines and how they are called.

    Attributes:
        where: the file that they were read from, for errors.
        manifest_text: the manifest's bytes.
        graph_text: the graph's bytes, with a token in each engine's place.
        lists: torch's lists of stored tensors, by entry; empty if the model keeps no state.
    """

    where: str
    manifest_text: bytes
    graph_text: bytes
    lists: Mapping[str, bytes]

    @classmethod
    def of(cls, artifact: Artifact) -> Source:
        """Reads an artifact's parts.

        Raises:
            IncompatibleError: the artifact is foreign, or has operators that need PyTorch.
            MalformedArtifactError: the artifact is damaged.
        """
        where = str(artifact.path)
        if artifact.foreign:
            raise IncompatibleError(
                "it was saved by Torch-TensorRT itself, and has no manifest, which a converted file needs",
                where=where,
                remedy=f"give it one first: trtcross convert {artifact.path.name} -o OUT.pt2",
            )
        manifest_text = artifact.container.read(MANIFEST_ENTRY, size_limit=MANIFEST.size)
        source = cls(where, manifest_text, artifact.skeleton, {})
        if not source.program.state:
            return source
        names = filter(is_tensor_list, artifact.container.entries)
        lists = {name: artifact.read_entry(name, size_limit=TENSOR_LIST.size) for name in names}
        return cls(where, manifest_text, artifact.skeleton, lists)

    @property
    def manifest_sha256(self) -> str:
        """The manifest's digest, which the artifact's signature covers."""
        return hashlib.sha256(self.manifest_text).hexdigest()

    @cached_property
    def manifest(self) -> Manifest:
        return parse_manifest(self.manifest_text, where=f"{self.where}, manifest")

    def check(self) -> None:
        """Compares the digests of the graph and the lists with the manifest.

        Raises:
            MalformedArtifactError: one does not match.
        """
        for name, data in {GRAPH_ENTRY: self.graph_text, **self.lists}.items():
            if hashlib.sha256(data).hexdigest() != self._file(name).sha256:
                raise self.damaged(f"the digest of {name} does not match the manifest")

    @cached_property
    def program(self) -> Program:
        """The steps of a call, read from the graph, whose bindings fit the manifest's engines.

        Raises:
            IncompatibleError: a part of the graph needs PyTorch.
            MalformedArtifactError: trtcross does not write such a graph.
        """
        where = f"{self.where}, entry {GRAPH_ENTRY}"
        document = parse_graph(self.graph_text, where=where, limit=GRAPH)
        if blockers := operators_for_torch(document, casts=True):
            raise IncompatibleError(
                "the model has parts that run in PyTorch, which no other runtime has: " + listed(blockers),
                where=self.where,
                remedy="run the artifact itself; `trtcross build --require-no-torch` makes none such",
            )
        manifest = self.manifest
        program = read_program(document, [engine_token(i) for i in range(len(manifest.engines))], where)
        if len(program.inputs) != len(manifest.inputs) or len(program.outputs) != len(manifest.outputs):
            raise self.damaged("the graph has other inputs or outputs than the manifest lists")
        for step in program.engine_steps:
            entry = manifest.engines[step.engine]
            if len(step.inputs) != len(entry.inputs) or len(step.outputs) != len(entry.outputs):
                raise self.damaged(f"the graph calls engine {entry.name} with other bindings than the manifest lists")
        return program

    @cached_property
    def sizes(self) -> dict[str, list[int | None]]:
        """The sizes of each tensor, by its name; None stands for a size that may vary."""
        document = parse_graph(self.graph_text, where=self.where, limit=GRAPH)
        try:
            tensors = document["graph_module"]["graph"]["tensor_values"]
            return {name: [size.get("as_int") for size in tensor["sizes"]] for name, tensor in tensors.items()}
        except (LookupError, TypeError, AttributeError) as error:
            raise self.damaged("the graph's tensors cannot be read") from error

    @cached_property
    def state(self) -> tuple[State, ...]:
        """The buffers that calls use.

        Raises:
            IncompatibleError: a buffer is not stored separately and in C order.
            MalformedArtifactError: a buffer is missing.
        """
        stored = dict(self._stored())
        updates = dict(self.program.state_updates)
        return tuple(self._state(name, value, updates.get(value), stored) for value, name in self.program.state.items())

    def _state(self, name: str, value: str, update: str | None, stored: dict[str, StoredTensor]) -> State:
        tensor = stored.get(name)
        if tensor is None:
            raise self.damaged(f"the tensor {name!r} is missing")
        file = self._file(tensor.entry)
        if not tensor.in_order or tensor.size != file.size:
            raise IncompatibleError(
                f"the buffer {name!r} is a part of another tensor's memory, and cannot be converted by itself",
                where=self.where,
                remedy="register a contiguous copy of it as the buffer, and build again",
            )
        return State(name, value, update, tensor, file)

    def _stored(self) -> Iterator[tuple[str, StoredTensor]]:
        for entry, data in self.lists.items():
            document: Any = load_json(data, where=f"{self.where}, entry {entry}", limit=TENSOR_LIST)
            try:
                yield from stored_tensors(document, entry).items()
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise self.damaged(f"the list {entry} cannot be read") from error

    def _file(self, entry: str) -> FileEntry:
        file = self.manifest.files.get(entry)
        if file is None:
            raise self.damaged(f"the manifest does not list {entry}")
        return file

    @contextmanager
    def made_again(self) -> Iterator[None]:
        """Turns exceptions that hostile parts cause in the block into an error about the file.

        Raises:
            MalformedArtifactError: the parts are not as trtcross writes them.
        """
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise self.damaged(f"it cannot be made again from its parts: {type(error).__name__}: {error}") from error

    def damaged(self, problem: str) -> MalformedArtifactError:
        """Returns the error for a file that is not what its artifact was converted to."""
        return MalformedArtifactError(problem, where=self.where, remedy="convert the artifact again")
