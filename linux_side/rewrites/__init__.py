"""Our decompositions and rewrites of operators whose upstream decomposition or converter is wrong or missing.

Each file has one kind of operator. ``docs/build/rewrites.md`` lists each with its upstream file, and
``docs/build/operators.md`` has the table of what was tested.
"""
