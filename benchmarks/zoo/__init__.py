"""The model zoo: public architectures, each built with the options that its users need.

    python -m benchmarks.zoo [--only PATTERN]        # needs no GPU, and the extra `zoo`

Each family is a file, whose ``ROWS`` are its rows. Weights are random and depend on their names. Depth and width are
small; the structure is the architecture's own.
"""

import os

# numpy's linear algebra starts threads when it is imported, and a process that forks to build rows must have only one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
