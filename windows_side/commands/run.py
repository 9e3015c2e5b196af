"""``trtcross run``: runs an artifact on inputs from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolchain.artifact import Artifact, open_artifact
from toolchain.cli.offers import files
from toolchain.cli.output import Output, verb
from toolchain.io.places import require_own_place
from toolchain.progress import working
from windows_side.calling.files import write_outputs
from windows_side.commands.load_options import load_options
from windows_side.options import RunOptions
from windows_side.preflight.admission import admit
from windows_side.preflight.requirements import Runtime
from windows_side.preflight.runtimes import choose_runtime
from windows_side.session.opening import open_session
from windows_side.session.session import Session

if TYPE_CHECKING:
    from windows_side.execution.model import LoadedModel
    from windows_side.onnxruntime.session import OnnxSession


@click.command()
@click.argument("artifact", shell_complete=files)
@click.option("--input", "source", required=True, type=click.Path(path_type=Path), help="Tensors by input name.")
@click.option("--output", "out", required=True, type=click.Path(path_type=Path), help="Where outputs go, by name.")
@verb
@load_options("kernels", "runtime")
def run(output: Output, artifact: str, source: Path, out: Path, loading: RunOptions) -> None:
    """Run ARTIFACT on the tensors in a safetensors file, named as `trtcross inspect` names the inputs."""
    require_own_place(out, artifact, source, where="--output")
    with open_artifact(artifact) as opened:
        runtime = choose_runtime(opened, loading.runtime)
        if runtime is not Runtime.TORCH:
            names = _run_in_session(opened, runtime, loading, source, out)
        else:
            doubts = admit(opened, loading)  # before torch, which may be what is missing
            with working("loading the engines", opened.container.size):
                from windows_side.loader.loading import load_admitted

                model = load_admitted(opened, doubts, loading)
            with working("running"):
                names = run_file(model, opened, source, out)
    output.put(artifact=artifact, output=str(out), tensors=names, trust=loading.trust, runtime=runtime.value)
    output.say(f"wrote {', '.join(names)} to {out}")


def _run_in_session(artifact: Artifact, runtime: Runtime, loading: RunOptions, source: Path, out: Path) -> list[str]:
    """Does what :func:`run_file` does, without torch."""
    with working("loading the engines", artifact.container.size):
        session = _session(artifact, runtime, loading)
    with session, working("running"):
        from windows_side.session.samples import read_feed, write_arrays

        outputs = session.run(read_feed(artifact.manifest, source))
    named = {spec.name: outputs[spec.name] for spec in artifact.manifest.outputs if spec.dtype is not None}
    write_arrays(named, out)
    return list(named)


def _session(artifact: Artifact, runtime: Runtime, loading: RunOptions) -> Session | OnnxSession:
    if runtime is Runtime.TENSORRT:
        return open_session(artifact, loading)
    from windows_side.onnxruntime.session import OnnxSession

    return OnnxSession(artifact, loading)


def run_file(model: LoadedModel, artifact: Artifact, source: Path, out: Path) -> list[str]:
    """Runs a loaded model on a file of inputs, and writes a file of outputs.

    Returns:
        The names of the outputs that were written.

    Raises:
        UsageError: the input file cannot be read, an input is missing, or the outputs cannot be written.
    """
    from safetensors.torch import save
    from torch.utils import _pytree as pytree

    from windows_side.execution.call import call_of
    from windows_side.execution.samples import read_inputs

    args, kwargs = call_of(artifact.manifest, read_inputs(artifact.manifest, source), model.device)
    outputs = pytree.tree_leaves(model(*args, **kwargs))
    named = {
        spec.name: value.contiguous()
        for spec, value in zip(artifact.manifest.outputs, outputs, strict=True)
        if spec.dtype is not None
    }
    write_outputs(save(named), out)
    return list(named)
