"""The cells of a spec: each is one artifact to build and verify, with a readable identifier for selection."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from linux_side.matrix.spec.selectors import matches, require_match
from linux_side.matrix.spec.spec import BuildSettings, Exclusion, Inclusion, Spec, Target
from linux_side.options import BuildOptions, Precision
from toolchain.checker.structure import Level
from toolchain.cli.fields import words_of
from toolchain.errors import UsageError
from toolchain.factory import FactoryName, is_factory
from toolchain.host.installed import version_of
from toolchain.io.hashing import file_digest
from toolchain.strict_model import StrictModel
from toolchain.targets import Backend

_SHORT = {Backend.TENSORRT_RTX: "rtx", Backend.TENSORRT: "trt"}


class Cell(StrictModel):
    """One artifact of a matrix.

    Attributes:
        id: the identifier, such as ``resnet50-fp16-windows_x86_64-rtx1.6``, followed by GPUs if the target names any.
        name: the model's name in the spec.
        model: the model, as ``trtcross build`` takes it.
        precision: the precision.
        target: where the artifact runs.
        settings: the options of the build other than the axes.
        level: the level to verify to.
        base: the folder in which modules and ``.pt2`` files are looked up.
        excluded: why the spec excludes the cell; None if it does not.
    """

    id: str
    name: str
    model: str
    precision: Precision
    target: Target
    settings: BuildSettings
    level: Level
    base: Path = Path()
    excluded: str | None = None

    def options(self) -> BuildOptions:
        """Returns the options of ``trtcross build``; those that the spec does not set have their defaults."""
        return BuildOptions(
            target=self.target.platform,
            backend=self.target.backend.value,
            gpus=self.target.gpus,
            precision=self.precision,
            **_of_precision(self.settings.chosen(), self.precision),
        )

    def build_arguments(self) -> list[str]:
        """Returns the arguments of ``trtcross build``, except ``-o``."""
        return [self.model, *words_of(self.options())]

    @property
    def program(self) -> Path | None:
        """The model's ``.pt2`` file; None if the model is not a file or the file does not exist."""
        path = self.base / self.model
        return path if path.suffix == ".pt2" and path.is_file() else None

    def digest(self) -> str:
        """Returns a digest of everything that makes a finished cell stale: settings, its model's files, versions."""
        return _digest(
            {
                "cell": self.spec_digest(),
                "source": source_digest(self.model, self.base),
                "versions": _versions(self.target.backend),
            }
        )

    def spec_digest(self) -> str:
        """Returns a digest of the cell in the spec, which is the same on every machine. Unset options do not count."""
        return _digest(self.model_dump(mode="json", exclude={"base", "excluded"}, exclude_none=True))


def _of_precision(settings: dict[str, Any], precision: Precision) -> dict[str, Any]:
    """Removes settings that do not apply to this precision, because one table of a spec serves several precisions."""
    plan = settings.get("precision_plan")
    unused = {"tolerance"} if precision != "auto" else set()
    if precision == "fp32":
        unused.add("keep_fp32")
    if plan and plan.precision != precision:
        unused.add("precision_plan")
    return {name: value for name, value in settings.items() if name not in unused}


def cells_of(spec: Spec, base: Path = Path()) -> list[Cell]:
    """Returns every cell: in the order of models, targets and precisions, then the included ones.

    Excluded cells are returned too, with their reason. Exclusions do not apply to included cells, which are requested
    one by one.

    Args:
        spec: the spec.
        base: the folder in which modules and ``.pt2`` files are looked up.

    Raises:
        UsageError: two cells have the same identifier, an exclusion matches nothing, or an included model is unknown.
    """
    product = list(_product(spec))
    for index, exclusion in enumerate(spec.exclude):
        require_match(exclusion.select, [cell.id for cell in product], where=f"exclude.{index}")
    left = [cell.model_copy(update={"excluded": _reason(cell.id, spec.exclude)}) for cell in product]
    cells = [*left, *(_included(spec, entry) for entry in spec.include)]
    cells = [cell.model_copy(update={"base": base}) for cell in cells]
    seen: set[str] = set()
    for cell in cells:
        if cell.id in seen:
            raise UsageError(
                f"two cells are called {cell.id}",
                where="targets, include",
                remedy="targets must differ in platform, backend, version or gpus; an included cell must be a new one",
            )
        seen.add(cell.id)
    return cells


def identifier(name: str, precision: str, target: Target) -> str:
    """Returns a cell's identifier: its parts, which contain no hyphens, joined by hyphens."""
    parts = [name, precision, target.platform.runtime_name, _SHORT[target.backend] + (target.version or "")]
    if target.gpus:
        parts.append("+".join(target.gpus))
    return "-".join(parts)


def folder_weights(path: Path) -> list[Path]:
    """Returns the weight files of a Hugging Face model folder; none if the path is not a folder."""
    return sorted(path.glob("*.safetensors")) if path.is_dir() else []


def source_digest(model: str, base: Path = Path()) -> str | None:
    """Returns the digest of a model's source: the ``.pt2`` file, the model folder, or the module of the factory.

    Other modules that a factory's module imports are not included. None if the source is not found.
    """
    path: Path | None = base / model
    if (base / model).is_dir():
        files = [*sorted((base / model).glob("*.json")), *folder_weights(base / model)]
        return _digest({file.name: file_digest(file) for file in files})
    if is_factory(model):
        path = FactoryName.parse(model).source(base)
    return file_digest(path) if path and path.is_file() else None


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _product(spec: Spec) -> Iterator[Cell]:
    for name, entry in spec.models.items():
        settings = entry.over(spec.build)
        for target in spec.targets:
            for precision in entry.precisions or spec.precisions:
                yield _cell(spec, name, precision, target, settings)


def _included(spec: Spec, entry: Inclusion) -> Cell:
    if entry.model not in spec.models:
        raise UsageError(
            f"the spec has no model {entry.model!r}", where="include", remedy="name one of: " + ", ".join(spec.models)
        )
    target = Target(**{name: getattr(entry, name) for name in Target.model_fields})
    return _cell(spec, entry.model, entry.precision, target, entry.over(spec.models[entry.model].over(spec.build)))


def _cell(spec: Spec, name: str, precision: Precision, target: Target, settings: BuildSettings) -> Cell:
    return Cell(
        id=identifier(name, precision, target),
        name=name,
        model=spec.models[name].model,
        precision=precision,
        target=target,
        settings=settings,
        level=target.verify or spec.verify,
    )


def _reason(name: str, exclusions: Iterable[Exclusion]) -> str | None:
    return next((item.reason for item in exclusions if matches(name, item.select)), None)


def _versions(backend: Backend) -> dict[str, str | None]:
    return {name: version_of(name) for name in ("trtcross", "torch", *backend.distributions)}
