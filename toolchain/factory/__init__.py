"""Factories (``module:factory``, ``./file.py:factory``): functions of the user that make a model."""

from toolchain.factory.call import call_factory
from toolchain.factory.lookup import require_factory
from toolchain.factory.name import FactoryName, is_factory

__all__ = ["FactoryName", "call_factory", "is_factory", "require_factory"]
