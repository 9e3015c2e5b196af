"""What we refuse before Torch-TensorRT sees it, each with its own reason."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind

from toolchain.errors import BuildFailedError, UsageError

_OWN_NAMESPACES = {"aten", "prims", "prim", "higher_order"}


def check_operators(program: ExportedProgram, torch_executed_ops: Collection[str]) -> None:
    """Refuses quantized models and custom operators.

    Args:
        torch_executed_ops: operators that the caller wants to keep in PyTorch; a custom operator among them is
            the caller's own business on the Windows side.

    Raises:
        BuildFailedError: with the operator's name.
    """
    allowed = torch_executed_names(torch_executed_ops)
    for operator in _operators(program):
        if "quantiz" in operator.namespace or "quantiz" in operator._opname:
            raise BuildFailedError(
                f"the model is quantized: it calls {operator}",
                where="operators",
                remedy="build from the model before quantization, with --precision fp16 or bf16",
            )
        if operator.namespace not in _OWN_NAMESPACES and f"torch.ops.{operator}" not in allowed:
            raise BuildFailedError(
                f"the model calls the custom operator {operator}, which neither TensorRT nor a Windows machine has",
                where="operators",
                remedy="write it with PyTorch's own operators; or keep it in PyTorch with "
                f"--torch-executed-op {operator}, if its library is installed on the Windows machine too",
            )


def check_state(program: ExportedProgram) -> None:
    """Refuses batch norm in training mode, which would change its statistics with every call.

    Args:
        program: after decomposition: before it, changes of state are not declared.

    Raises:
        BuildFailedError: with the statistics' names.
    """
    changed = [str(s.target) for s in program.graph_signature.output_specs if s.kind is not OutputKind.USER_OUTPUT]
    statistics = [name for name in changed if name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    if statistics:
        raise BuildFailedError(
            f"batch norm is in training mode: running the model would change {statistics[0]}"
            + (f" and {len(statistics) - 1} more" if len(statistics) > 1 else ""),
            where="model",
            remedy="call model.eval() before export",
        )


def _operators(program: ExportedProgram) -> Iterator[torch._ops.OpOverload]:
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            if isinstance(node.target, torch._ops.OpOverload):
                yield node.target


def torch_executed_names(operators: Collection[str]) -> Sequence[str]:
    """Operator names as Torch-TensorRT compares them, such as ``torch.ops.aten.add.Tensor``.

    Raises:
        UsageError: PyTorch has no such operator.
    """
    return [f"torch.ops.{_operator(name)}" for name in operators]


def _operator(name: str) -> torch._ops.OpOverload:
    plain = name.removeprefix("torch.ops.").replace("::", ".")
    namespace, _, rest = plain.partition(".")
    operator, _, overload = rest.partition(".")
    try:
        packet = getattr(getattr(torch.ops, namespace), operator)
        return getattr(packet, overload or packet.overloads()[0])
    except (AttributeError, IndexError, RuntimeError):
        raise UsageError(
            f"PyTorch has no operator {name!r}",
            where="--torch-executed-op",
            remedy="write it as in `trtcross inspect`'s list, such as aten.add.Tensor",
        ) from None
