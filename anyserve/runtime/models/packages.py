"""Files of an installed distribution, found without importing its package."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from anyserve.errors import MissingDependencyError
from anyserve.runtime.models.catalog import BuiltinModel


def member_path(model: BuiltinModel) -> Path:
    """Return where the model's file or folder lies.

    Importing the package would run its code and pull in its own dependencies; its metadata tells
    the place as well.

    Raises:
        MissingDependencyError: The package, or the file in it, is not installed.
    """
    try:
        distribution = metadata.distribution(model.distribution)
    except metadata.PackageNotFoundError:
        raise _missing(model, f"it needs the package {model.distribution}") from None
    path = Path(str(distribution.locate_file(model.member)))
    if not path.exists():
        raise _missing(model, f"{model.distribution} {distribution.version} lacks {model.member}")
    return path


def is_installed(model: BuiltinModel) -> bool:
    """Whether the package of this model is there."""
    try:
        member_path(model)
    except MissingDependencyError:
        return False
    return True


def version(model: BuiltinModel) -> str:
    """Version of the installed package."""
    return metadata.version(model.distribution)


def _missing(model: BuiltinModel, why: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"The model {model.name} is not installed: {why}.",
        code="model_missing",
        hint=f"{model.install_line}   ({model.download_mib} MiB)",
    )
