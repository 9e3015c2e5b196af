"""Tries every operator that our graphs use with inputs that hypothesis draws, and compares it with eager PyTorch.

``python -m tests.operators table`` tries them all and writes docs/build/operators.md (``make operators``).
``python -m tests.operators build FOLDER`` builds an artifact of each, and ``python -m tests.operators run FOLDER OUT``
runs those on a GPU host.
"""
