"""Collects the guards of a program from every place where torch stores them.

A program that was just exported has guards in its shape environment, each with the line of the model that caused it. A
program that was read from a file has them as Python text in ``_guards_code``, which is parsed here and never run. Both
may have more as assertions in the graph. Lowering adds its own to the shape environment.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils import _pytree as pytree

from linux_side.guards.algebra import Rule
from linux_side.guards.locations import line_of, location
from linux_side.guards.reduce import reduced
from linux_side.guards.sizes import input_sizes, range_of, text_of
from linux_side.guards.tracing import is_of_data
from linux_side.guards.translate import CannotSayError, Resolve, translate
from toolchain.errors import BuildFailedError
from toolchain.guards.bounds import Range
from toolchain.guards.evaluate import Guards
from toolchain.guards.grammar import GuardError, Operation, Size, check_expression
from toolchain.guards.search import nearest

_ASSERT = torch.ops.aten._assert_scalar.default


@dataclass(frozen=True)
class Found:
    """A guard and its origin.

    Attributes:
        rule: the condition in our grammar.
        where: the place in the model; None if unknown.
        by_lowering: whether lowering added the guard.
        origin: torch's own record; None if there is none.
    """

    rule: Rule
    where: str | None = None
    by_lowering: bool = False
    origin: Any = None


class ProgramGuards:
    """The conditions on the sizes of a program's inputs. Create it before the program is lowered.

    Args:
        program: the exported program.
        names: the names of the inputs' leaves.
        values: the values of the leaves: fake tensors, symbolic numbers, or None.

    Attributes:
        names: the names of the inputs' leaves.
        sizes: the inputs' varying sizes.
        just_exported: whether the program was exported in this process, and not read from a file.
    """

    def __init__(self, program: ExportedProgram, names: Sequence[str], values: Sequence[Any]) -> None:
        self.names = names
        self.sizes = input_sizes(names, values, program.range_constraints)
        self._environment = _environment(values)
        # Only the replacements so far: those that lowering makes later are guards to us.
        self._replacements = dict(self._environment.replacements) if self._environment else {}
        self._known: dict[Any, Rule] = {}
        self._dropped: set[Any] = set()
        self._exported = len(self._environment.guards) if self._environment else 0
        self._ranges = dict(self._environment.var_to_range) if self._environment else {}
        self._paths = _paths(program, names)
        # A program that was just exported has the same guards, and more, in its environment.
        self.just_exported = bool(self._environment and self._environment.var_to_sources)
        texts = [] if self.just_exported else program._guards_code
        self._in_text = [self._translated(text, self._resolve_path, None) for text in texts]
        self._in_graph = [self._from(expression, where) for expression, where in _asserted(program)]

    def found(self, *, relations: bool = True) -> Iterator[Found]:
        """Yields every guard that torch has now; after lowering, this includes those that lowering added.

        Args:
            relations: whether to include the relations of sizes that are computed from others (``2*s0``).

        Raises:
            BuildFailedError: our grammar cannot express a guard.
        """
        for size in self.sizes.expressions:
            if (relations or size in self.sizes.rules) and (rule := self.sizes.rule_of(size)) is not None:
                yield Found(rule)
        yield from self._in_text
        yield from self._in_graph
        yield from self.traced()

    def rules(self, constraints: Mapping[Any, Any]) -> list[Operation]:
        """Returns the guards as rules, without those that follow from the ranges or from other guards.

        Args:
            constraints: the artifact's range of each symbol.

        Raises:
            BuildFailedError: our grammar cannot express a guard, or no sizes satisfy one.
        """
        found = list(self.found())
        ranges = {size: range_of(expression, constraints) for size, expression in self.sizes.expressions.items()}
        for guard in found:
            if guard.rule is False:
                raise _impossible("a guard of the program is never true", guard.where)
        rules = [guard.rule for guard in found if isinstance(guard.rule, Operation)]
        try:
            kept = reduced(rules, ranges)
            Guards.parse(map(str, kept), ranges)
        except (GuardError, ZeroDivisionError) as error:
            raise _impossible(str(error) or "a guard of the program divides by zero", None) from error
        return kept

    def of_lowering(self) -> Iterator[Found]:
        """Returns the guards that lowering added."""
        return (guard for guard in self.traced() if guard.by_lowering)

    def traced(self) -> Iterator[Found]:
        """Yields the guards in torch's shape environment, with their origins."""
        for index, guard in enumerate(self._environment.guards if self._environment else ()):
            if guard.expr not in self._dropped:
                found = self._from(guard.expr, location(guard.sloc))
                yield replace(found, origin=guard, by_lowering=index >= self._exported)

    def drop(self, guard: Found) -> None:
        """Removes a guard of :meth:`traced` from the program, and ignores it if torch adds it again."""
        self._dropped.add(guard.origin.expr)
        if self._environment and guard.origin in self._environment.guards:
            self._environment.guards.remove(guard.origin)
            self._exported -= not guard.by_lowering

    def example(self) -> dict[Size, int]:
        """Returns the sizes of the example."""
        return self.sizes.at(self.examples)

    @property
    def examples(self) -> dict[str, int]:
        """The value that each symbol had when the program was traced, if torch still records it."""
        known = self._environment.backed_var_to_val.items() if self._environment else ()
        return {str(symbol): int(value) for symbol, value in known if symbol.is_Symbol}

    def require_ranges(self, constraints: Mapping[Any, Any]) -> None:
        """Requires that lowering has not narrowed the ranges.

        Args:
            constraints: the artifact's range of each symbol.

        Raises:
            BuildFailedError: a range was narrowed. The message gives the size and both ranges.
        """
        for size, expression in self.sizes.expressions.items():
            before, left = self._ranges.get(expression), self._now(expression)
            if before is None or left is None or expression not in constraints:
                continue
            wanted = constraints[expression]
            if max(before.lower, wanted.lower) < left.lower or left.upper < min(before.upper, wanted.upper):
                raise BuildFailedError(
                    f"lowering narrowed {size} from {wanted.lower} to {wanted.upper} to {left.lower} to {left.upper}",
                    where=f"input {size.input}, dimension {size.dim}",
                    remedy="give that range, or rewrite what the model does with this size",
                )

    def _now(self, symbol: Any) -> Any:
        return self._environment.var_to_range.get(symbol) if self._environment else None

    def allows(self, sizes: Mapping[Size, int]) -> bool:
        """Returns whether a call with these sizes satisfies every guard. Ranges are not checked.

        Args:
            sizes: a value for each varying size.
        """
        rules = [guard.rule for guard in self.found() if isinstance(guard.rule, Operation)]
        return self.sizes.completed(sizes) == dict(sizes) and Guards(rules).holds(sizes)

    def takes(self, sizes: Mapping[Size, int]) -> bool:
        """Returns whether a call with these sizes satisfies every guard and range.

        Args:
            sizes: a value for each varying size.
        """
        return self.allows(sizes) and all(_is_within(value, self.sizes.ranges[size]) for size, value in sizes.items())

    def nearest(self, sizes: Mapping[Size, int], ranges: Mapping[Size, Range] | None = None) -> list[dict[Size, int]]:
        """Returns the nearest sizes that the guards allow: the given ones, or one choice below and one above.

        Args:
            sizes: a value for each varying size. Sizes that are computed from others follow those.
            ranges: the range of each size; None for the program's own ranges.

        Returns:
            The choices of sizes; empty if none are near.
        """
        rules = [guard.rule for guard in self.found(relations=False) if isinstance(guard.rule, Operation)]
        free = {size: (ranges or self.sizes.ranges)[size] for size in self.sizes.free}
        found = nearest(Guards(rules, self.sizes.free), {size: sizes[size] for size in free}, free)
        return [complete for near in found if (complete := self.sizes.completed(near)) is not None]

    def _from(self, expression: Any, where: str | None) -> Found:
        if expression not in self._known:
            self._known[expression] = self._rule_of(expression, where)
        return Found(self._known[expression], where)

    def _rule_of(self, expression: Any, where: str | None) -> Rule:
        if not expression.free_symbols or is_of_data(expression):
            return True  # sizes that depend on data are checked where they occur
        while (replaced := expression.xreplace(self._replacements)) != expression:
            expression = replaced
        return self._translated(text_of(expression), self.sizes.resolve, where).rule

    def _translated(self, text: str, resolve: Resolve, where: str | None) -> Found:
        try:
            rule = translate(text, resolve, self.sizes.ranges)
            if isinstance(rule, Operation):
                check_expression(rule)
        except (CannotSayError, GuardError) as error:
            raise BuildFailedError(
                f"the model needs sizes for which {text}, which an artifact cannot check: {error}",
                where=where or "guards of the exported program",
                remedy="rewrite the model's conditions on sizes with whole numbers: comparisons, +, -, *, // and %",
            ) from error
        return Found(rule, where)

    def _resolve_path(self, node: ast.expr) -> Any:
        path = _path(node)
        place = self._paths.get(path[:-1]) if path else None
        if place is None or path is None:
            return None
        size = Size(place, path[-1])
        return self.sizes.expressed(size) if size in self.sizes.expressions else None


def _is_within(value: int, within: Range) -> bool:
    low, high = within
    return low <= value and (high is None or value <= high)


def _impossible(problem: str, where: str | None) -> BuildFailedError:
    return BuildFailedError(
        problem,
        where=where or "guards of the exported program",
        remedy="change the ranges of the dynamic dimensions, or the model's conditions on sizes",
    )


def _environment(values: Sequence[Any]) -> ShapeEnv | None:
    for value in values:
        for size in value.shape if isinstance(value, torch.Tensor) else ():
            if isinstance(size, torch.SymInt):
                return size.node.shape_env
    return None


def _asserted(program: ExportedProgram) -> Iterator[tuple[Any, str | None]]:
    for node in program.graph.find_nodes(op="call_function", target=_ASSERT):
        condition = node.args[0].meta.get("val") if isinstance(node.args[0], torch.fx.Node) else None
        if isinstance(condition, torch.SymBool):
            yield condition.node.expr, line_of(node)


def _paths(program: ExportedProgram, names: Sequence[str]) -> dict[tuple[Any, ...], str]:
    """Returns each input's name by its path in torch's text: an argument with keys, or a number among all leaves."""
    spec = program.call_spec.in_spec
    tree = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    signature = program.module_call_graph[0].signature
    arguments = list((signature and signature.forward_arg_names) or [])
    paths: dict[tuple[Any, ...], str] = {}
    for index, (path, _) in enumerate(pytree.tree_flatten_with_path(tree)[0]):
        kind, argument, *inner = path
        keys = tuple(getattr(key, "key", getattr(key, "idx", getattr(key, "name", None))) for key in inner)
        name = str(argument.key) if kind.idx else (arguments[argument.idx : argument.idx + 1] or [""])[0]
        named, numbered = (name, *keys), ("flat_args", index)
        paths[named] = paths[numbered] = names[index]
        variadic, _, position = name.rpartition("_")
        if variadic and position.isdigit():
            paths.setdefault((variadic, int(position), *keys), names[index])
    return paths


def _path(node: ast.expr) -> tuple[Any, ...] | None:
    """Returns the keys in an expression: ``("x", 0, 1)`` for ``L['x'][0].size()[1]``; None for another form."""
    match node:
        case ast.Subscript(ast.Call(ast.Attribute(leaf, "size"), [], []), ast.Constant(int(dim))):
            keys = _keys(leaf)
            return None if keys is None else (*keys, dim)
    return None


def _keys(node: ast.expr) -> tuple[Any, ...] | None:
    match node:
        case ast.Name("L"):
            return ()
        case ast.Subscript(inner, ast.Constant(key)):
            keys = _keys(inner)
            return None if keys is None else (*keys, key)
        case ast.Attribute(inner, name):
            keys = _keys(inner)
            return None if keys is None else (*keys, name)
    return None
