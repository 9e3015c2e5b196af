"""``module:factory`` and ``./file.py:factory``: a function of the user's that makes a model, imported and called."""

from toolchain.factory.call import call_factory
from toolchain.factory.lookup import require_factory
from toolchain.factory.name import FactoryName, is_factory

__all__ = ["FactoryName", "call_factory", "is_factory", "require_factory"]
