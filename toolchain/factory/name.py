"""How a factory is named: ``module:factory``, or ``FILE.py:factory`` for one that no import would find."""

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
    """A factory's name, in its parts.

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
        """The file, where a path is given; None where a module is."""
        separators = {os.sep, os.altsep} - {None}
        is_path = self.module.endswith(".py") or any(str(separator) in self.module for separator in separators)
        return Path(self.module) if is_path else None

    def source(self, base: Path = Path()) -> Path | None:
        """The file in or below ``base`` that holds the factory; None where it is installed elsewhere."""
        if self.path:
            return base / self.path if (base / self.path).is_file() else None
        module = base.joinpath(*self.module.split("."))
        return next((p for p in (module.with_suffix(".py"), module / "__init__.py") if p.is_file()), None)
