"""What a build imports, for processes that are forked (:mod:`tests.integration.warm`)."""

from __future__ import annotations

import gc

import torch.export  # noqa: F401

import linux_side.driver.pipeline  # noqa: F401
from linux_side.backends import engine_builder

engine_builder("tensorrt-rtx").import_upstream()
gc.freeze()
