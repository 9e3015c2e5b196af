"""Our own decompositions of operators whose decomposition or converter upstream is wrong.

One file a kind. ``docs/graphs.md`` lists each with its upstream file, and ``docs/operators.md`` has the table of what
was tried.
"""
