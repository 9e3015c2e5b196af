"""Our own decompositions of operators whose decomposition or converter upstream is wrong.

One file a kind. ``docs/build/graphs.md`` lists each with its upstream file, and ``docs/build/operators.md`` has the
table of what was tried.
"""
