"""The cells of a spec: each one artifact to build and verify, with an identifier that people can read and select."""

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
    """One artifact.

    Attributes:
        id: such as ``resnet50-fp16-windows_x86_64-rtx1.6``; GPUs follow where the target names any.
        name: of the model in the spec.
        model: what ``trtcross build`` is given.
        base: the folder in which modules and ``.pt2`` files are looked up.
        excluded: why the spec leaves it out, or None.
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
        """What ``trtcross build`` is asked for; what the spec does not say has its default."""
        return BuildOptions(
            target=self.target.platform,
            backend=self.target.backend.value,
            gpus=self.target.gpus,
            precision=self.precision,
            **_of_precision(self.settings.chosen(), self.precision),
        )

    def build_arguments(self) -> list[str]:
        """Of ``trtcross build``, all but ``-o``."""
        return [self.model, *words_of(self.options())]

    @property
    def program(self) -> Path | None:
        """The ``.pt2`` file that is its model, where it is one and is there."""
        path = self.base / self.model
        return path if path.suffix == ".pt2" and path.is_file() else None

    def digest(self) -> str:
        """Changes with whatever would make a finished cell stale: its settings, its model's file, the versions."""
        return _digest(
            {
                "cell": self.spec_digest(),
                "source": source_digest(self.model, self.base),
                "versions": _versions(self.target.backend),
            }
        )

    def spec_digest(self) -> str:
        """Changes with what the spec says of it, and is the same on every machine; not with what it leaves out."""
        return _digest(self.model_dump(mode="json", exclude={"base", "excluded"}, exclude_none=True))


def _of_precision(settings: dict[str, Any], precision: Precision) -> dict[str, Any]:
    """The settings without those of another precision: one table of a spec serves several precisions."""
    plan = settings.get("precision_plan")
    unused = {"tolerance"} if precision != "auto" else set()
    if precision == "fp32":
        unused.add("keep_fp32")
    if plan and plan.precision != precision:
        unused.add("precision_plan")
    return {name: value for name, value in settings.items() if name not in unused}


def cells_of(spec: Spec, base: Path = Path()) -> list[Cell]:
    """Every cell, excluded ones too, in the order of models, targets, precisions, and then those included.

    An exclusion does not reach the included ones: those are there because somebody asked for just them.

    Args:
        base: the folder in which modules and ``.pt2`` files are looked up.

    Raises:
        UsageError: two cells of one identifier, an exclusion of nothing, an inclusion of an unknown model.
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
    """Parts joined by hyphens; no part holds one."""
    parts = [name, precision, target.platform.runtime_name, _SHORT[target.backend] + (target.version or "")]
    if target.gpus:
        parts.append("+".join(target.gpus))
    return "-".join(parts)


def folder_weights(path: Path) -> list[Path]:
    """The weights in a Hugging Face model folder; none where it is none."""
    return sorted(path.glob("*.safetensors")) if path.is_dir() else []


def source_digest(model: str, base: Path = Path()) -> str | None:
    """Of what a model comes from: the ``.pt2`` or the model folder itself, or the factory's module, where it is here.

    What that module imports in its turn is not seen.
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
