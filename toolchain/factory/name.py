"""Names of factories: ``module:factory``, or ``FILE.py:factory`` for a file that an import would not find."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


def is_factory(model: str) -> bool:
    """Whether ``MODEL`` names a factory and not a file or a folder."""
    module, colon, function = model.rpartition(":")
    return bool(colon and module) and function.isidentifier() and not Path(model).exists()


@dataclass(frozen=True)
class FactoryName:
    """A factory's name, split into its module or file and its function.

    Attributes:
        module: the module's name or the file's path.
        function: the function in it.
    """

    module: str
    function: str

    @classmethod
    def parse(cls, text: str) -> FactoryName:
        module, _, function = text.rpartition(":")
        return cls(module, function)

    @property
    def path(self) -> Path | None:
        """The path of the file; None if the name is that of a module."""
        separators = {os.sep, os.altsep} - {None}
        is_path = self.module.endswith(".py") or any(str(separator) in self.module for separator in separators)
        return Path(self.module) if is_path else None

    def source(self, base: Path = Path()) -> Path | None:
        """Returns the file, relative to ``base``, that holds the factory; None if it is not there."""
        if self.path:
            return base / self.path if (base / self.path).is_file() else None
        module = base.joinpath(*self.module.split("."))
        return next((p for p in (module.with_suffix(".py"), module / "__init__.py") if p.is_file()), None)
