"""The models that people have: 120 public architectures, each built as its users would have it.

    python -m benchmarks.zoo [--only PATTERN]        # needs no GPU; the extra `zoo`

One file a family; ``ROWS`` holds its rows. Weights are random, from names; depth and width are small, the structure is
the architecture's own.
"""

import os

# numpy's algebra starts threads as it is imported, and rows are built in forks of a process that must have one thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
