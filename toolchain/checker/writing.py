"""The readers' checks, for a writer: nothing is written that a reader would refuse."""

from __future__ import annotations

import struct

from toolchain.checker.graph import graph_problems
from toolchain.container.entry_names import GOLDEN_ENTRY, GRAPH_ENTRY
from toolchain.engine.metadata_allowlist import unknown_in_pickle
from toolchain.errors import BuildFailedError, MalformedArtifactError
from toolchain.graph.document import parse_graph
from toolchain.graph.facts import GraphFacts, read_facts
from toolchain.graph.torch_free import listed, operators_for_torch
from toolchain.limits import GOLDEN_HEADER, GRAPH, METADATA, LimitError


def require_readable_graph(skeleton: bytes) -> GraphFacts:
    """Refuses a graph's text that no reader would accept, because of its form or its length.

    Returns:
        The facts that were read from it.

    Raises:
        BuildFailedError: the text is malformed, or exceeds a limit.
    """
    GRAPH.require(skeleton, where=GRAPH_ENTRY)
    try:
        facts = read_facts(skeleton, where=GRAPH_ENTRY)
    except MalformedArtifactError as error:
        cause = error.__cause__
        if isinstance(cause, LimitError):
            raise _unreadable(str(cause), cause.limit.remedy) from error
        raise _unreadable(error.problem, GRAPH.remedy) from error
    for node in facts.placeholders:
        METADATA.require(len(node.info(GRAPH_ENTRY).metadata), where=f"{GRAPH_ENTRY}, node {node.name}")
    return facts


def require_plain_graph(facts: GraphFacts) -> None:
    """Refuses a graph that would make torch run code.

    Raises:
        BuildFailedError: a part of it is more than data.
    """
    problem = next(graph_problems(facts.claims), None)
    for node in facts.placeholders:
        if problem is None and (unknown := unknown_in_pickle(node.info(GRAPH_ENTRY).metadata)):
            problem = f"an engine's metadata pickle holds {unknown}"
    if problem is not None:
        raise _unreadable(problem, "let more of the model go into engines; please report it if that is not the reason")


def require_no_torch(skeleton: bytes) -> None:
    """Refuses a graph that does not run without PyTorch.

    Raises:
        BuildFailedError: there are operators that need PyTorch; the message lists them.
    """
    if blockers := operators_for_torch(parse_graph(skeleton, where=GRAPH_ENTRY)):
        raise BuildFailedError(
            f"the artifact could not run without PyTorch, which runs {listed(blockers)}",
            where="--require-no-torch",
            remedy="rewrite these in the model, or build without --require-no-torch and run it with PyTorch",
        )


def require_readable_golden(data: bytes) -> None:
    """Refuses golden I/O whose header exceeds the readers' limit.

    Raises:
        BuildFailedError: the header is too long.
    """
    (length,) = struct.unpack_from("<Q", data)
    GOLDEN_HEADER.require(data[8 : 8 + length], where=GOLDEN_ENTRY)


def _unreadable(problem: str, remedy: str) -> BuildFailedError:
    return BuildFailedError(f"no reader would take the artifact: {problem}", where=GRAPH_ENTRY, remedy=remedy)
