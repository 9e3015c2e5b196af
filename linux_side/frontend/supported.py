"""Refuses programs that are known not to compile, each with its own reason, before Torch-TensorRT is called."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument

from linux_side.frontend.training import check_operators_of_training
from linux_side.fx.source_line import located
from toolchain.errors import BuildFailedError, UsageError

_OWN_NAMESPACES = {"aten", "prims", "prim", "higher_order"}
_REWRITTEN = {"transformers.grouped_mm_fallback"}  # by linux_side/rewrites/experts.py


def check_model(program: ExportedProgram, torch_executed_ops: Collection[str]) -> None:
    """Refuses a program with operators or values that are known not to work.

    Args:
        program: the exported program.
        torch_executed_ops: the operators that stay in PyTorch, which may be custom ones.

    Raises:
        BuildFailedError: the message gives the reason and the name of the operator or value.
    """
    _check_operators(program, torch_executed_ops)
    check_operators_of_training(program)
    _check_structure(program)


def _check_operators(program: ExportedProgram, torch_executed_ops: Collection[str]) -> None:
    """Refuses control flow, quantized models and custom operators.

    A custom operator that the caller keeps in PyTorch is allowed; the caller must provide it on the Windows machine.
    """
    allowed = torch_executed_names(torch_executed_ops)
    for node, flow in _control_flow(program):
        raise BuildFailedError(
            f"the model branches or loops on data: it calls {flow}",
            where=located(node),
            remedy="compute both sides and choose with torch.where, or unroll the loop",
        )
    for node, operator in _operators(program):
        if "quantiz" in operator.namespace or "quantiz" in operator._opname:
            raise BuildFailedError(
                f"the model is quantized: it calls {operator}",
                where=located(node),
                remedy="build from the model before quantization, with --precision fp16 or bf16",
            )
        known = operator.namespace in _OWN_NAMESPACES or str(operator.overloadpacket) in _REWRITTEN
        if not known and f"torch.ops.{operator}" not in allowed:
            raise BuildFailedError(
                f"the model calls the custom operator {operator}, which neither TensorRT nor a Windows machine has",
                where=located(node),
                remedy="write it with PyTorch's own operators; or keep it in PyTorch with "
                f"--torch-executed-op {operator}, if its library is installed on the Windows machine too",
            )


def _check_structure(program: ExportedProgram) -> None:
    """Refuses inputs and outputs that cannot be written to an artifact and read back."""
    for spec in program.graph_signature.output_specs:
        if isinstance(spec.arg, ConstantArgument) and isinstance(spec.arg.value, str):
            raise BuildFailedError(
                f"the model returns the string {spec.arg.value!r}, and torch.export.load cannot read such a program",
                where="model",
                remedy="return tensors, numbers or None",
            )
    leaves = {*program.graph_signature.user_inputs, *program.graph_signature.user_outputs}
    values = [node.meta.get("val") for node in program.graph.nodes if node.name in leaves]
    if any(isinstance(value, torch.Tensor) and value.dtype is torch.complex128 for value in values):
        raise BuildFailedError(
            "the model takes or returns complex128, which golden I/O cannot hold and TensorRT computes in fp32",
            where="model",
            remedy="use complex64",
        )


def _operators(program: ExportedProgram) -> Iterator[tuple[torch.fx.Node, torch._ops.OpOverload]]:
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            if isinstance(node.target, torch._ops.OpOverload):
                yield node, node.target


def _control_flow(program: ExportedProgram) -> Iterator[tuple[torch.fx.Node, str]]:
    """Yields the operators that take graphs as arguments, except those that decomposition removes."""
    for node in program.graph.nodes:
        if isinstance(node.target, torch._ops.HigherOrderOperator) and not node.target.name().startswith("wrap_with"):
            yield node, node.target.name()


def torch_executed_names(operators: Collection[str]) -> Sequence[str]:
    """Returns operator names in the form that Torch-TensorRT uses, such as ``torch.ops.aten.add.Tensor``.

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
