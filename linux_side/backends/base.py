"""The interface of a backend: builds the engine of a network for a platform and a set of GPUs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch

from linux_side import upstream
from linux_side.backends.monitor import OnStep, progress_monitor
from linux_side.backends.running_sums import add_running_sums_without_loops
from linux_side.backends.streaming import write_plan
from toolchain.errors import BuildFailedError, MissingComponentError
from toolchain.host.installed import version_of
from toolchain.manifest.models import Package
from toolchain.targets import Backend, ComputeCapability, Platform

# Plans with at least this many bytes of weights are streamed to a file. TensorRT's buffers for a stream take 195 MiB; a
# plan that is not streamed is once whole in memory.
STREAMED = 160 * 2**20


class EngineBuilder(ABC):
    """Builds engines for a set of GPUs and a platform. One process serves one build."""

    backend: ClassVar[Backend]
    install_command: ClassVar[str]

    def packages(self) -> tuple[Package, Package]:
        """Returns the installed Torch-TensorRT and TensorRT.

        Raises:
            MissingComponentError: one of them is not installed.
        """
        torch_tensorrt, tensorrt = (self._installed(name) for name in self.backend.distributions)
        return torch_tensorrt, tensorrt

    @abstractmethod
    def check_gpus(self, gpus: Sequence[ComputeCapability]) -> None:
        """Refuses GPUs that this backend, or this machine, cannot build for.

        Raises:
            UsageError: the backend builds no engine for these GPUs.
            IncompatibleError: the backend needs such a GPU in this machine, and there is none.
        """

    @abstractmethod
    def import_upstream(self) -> None:
        """Imports Torch-TensorRT into this process."""

    @abstractmethod
    def setting_overrides(self, platform: Platform) -> dict[str, bool]:
        """Returns the compilation settings that depend on the backend."""

    @abstractmethod
    def configure(self, config: Any, platform: Platform, gpus: Sequence[ComputeCapability]) -> None:
        """Sets the target on an ``IBuilderConfig``."""

    @abstractmethod
    def hardware_compatible(self, gpus: Sequence[ComputeCapability]) -> bool:
        """Returns whether the runtime must accept any GPU from Ampere on for these engines."""

    def prepare(self, partition: torch.fx.GraphModule) -> None:
        """Rewrites, in place, what would be a loop in the engine, and what this TensorRT would compute wrongly."""
        add_running_sums_without_loops(partition.graph)
        partition.graph.lint()
        partition.recompile()

    def environment(self, config: Any) -> AbstractContextManager[None]:
        """Returns what surrounds the building of an engine."""
        return nullcontext()

    def check_network(self, network: Any, gpus: Sequence[ComputeCapability]) -> None:  # noqa: B027 - optional
        """Refuses a network that this TensorRT would build and then compute wrongly.

        Raises:
            BuildFailedError: the network has such a layer.
        """

    def build(
        self,
        interpreter: Any,
        platform: Platform,
        gpus: Sequence[ComputeCapability],
        on_step: OnStep | None = None,
    ) -> Any:
        """Builds the engine of a network in memory.

        Args:
            interpreter: an interpreter from :func:`linux_side.upstream.interpreter` with a constructed network.
            platform: the platform to build for.
            gpus: the compute capabilities to build for; empty for the backend's default.
            on_step: called with the builder's step and the fraction done, from any thread.

        Returns:
            The plan, an object with the buffer protocol.

        Raises:
            BuildFailedError: TensorRT builds no engine. The message contains TensorRT's own.
        """
        return self._built(interpreter, platform, gpus, interpreter.builder.build_serialized_network, on_step)

    def build_file(
        self,
        interpreter: Any,
        platform: Platform,
        gpus: Sequence[ComputeCapability],
        path: Path,
        on_step: OnStep | None = None,
    ) -> None:
        """Builds the engine of a network into a file; a large plan is never whole in memory.

        Args:
            interpreter: an interpreter from :func:`linux_side.upstream.interpreter` with a constructed network.
            platform: the platform to build for.
            gpus: the compute capabilities to build for; empty for the backend's default.
            path: the file to write.
            on_step: called with the builder's step and the fraction done, from any thread.

        Raises:
            BuildFailedError: TensorRT builds no engine. The message contains TensorRT's own.
            OSError: the file cannot be written.
        """
        if upstream.weights_size(interpreter) < STREAMED:
            path.write_bytes(memoryview(self.build(interpreter, platform, gpus, on_step)))
            return

        def write(network: Any, config: Any) -> bool | None:
            return write_plan(interpreter.builder, network, config, path) or None

        self._built(interpreter, platform, gpus, write, on_step)

    def _built(
        self,
        interpreter: Any,
        platform: Platform,
        gpus: Sequence[ComputeCapability],
        build: Callable[[Any, Any], Any],
        on_step: OnStep | None,
    ) -> Any:
        network = upstream.network_of(interpreter)
        self.check_network(network, gpus)
        config = upstream.builder_config(interpreter)
        self.configure(config, platform, gpus)
        # TensorRT keeps no reference to the monitor: this variable keeps it alive during the build.
        monitor = progress_monitor(on_step) if on_step else None
        config.progress_monitor = monitor
        with upstream.builder_errors() as messages, self.environment(config):
            built = build(network, config)
        upstream.release_weights(interpreter)
        if built is None:
            raise BuildFailedError(
                f"TensorRT's builder refuses it: {upstream.words(messages) or 'it gives no reason'}",
                where=f"operators {', '.join(sorted(_operators(interpreter.module)))}",
                remedy="read TensorRT's messages above (-v shows all of them); keep an operator in PyTorch with "
                "--torch-executed-op",
            )
        return built

    def _installed(self, distribution: str) -> Package:
        version = version_of(distribution)
        if version is None:
            raise MissingComponentError(
                f"the backend {self.backend.value} needs {distribution}, which is not installed",
                where="this Python environment",
                remedy=self.install_command,
            )
        return Package(name=distribution, version=version)


def _operators(partition: Any) -> set[str]:
    return {str(node.target) for node in partition.graph.nodes if node.op == "call_function"}
