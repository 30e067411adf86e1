"""Distillation methods: one module per method, with a class `Method`; its file name is its name in a study file.

`method_names` and `load_method` are the whole registry: a new file here is a new method (except the modules of
`SHARED` and those with a leading underscore, which serve several methods).
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from mmkd.errors import UserError, choose, where_raised

if TYPE_CHECKING:
    from mmkd.config import Distillation
    from mmkd.distillation.base import DistillationMethod


SHARED = ("base", "facts", "frozen_teacher", "teacher_cache")
"""Modules that are not methods."""


def method_names() -> list[str]:
    """The methods' names, without importing them."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in SHARED and not m.name.startswith("_"))


def load_method(name: str) -> type[DistillationMethod]:
    """The class of the method called `name`.

    Raises:
        UserError: unknown, with the nearest names; or its file cannot be imported, with the line, or has no `Method`.
    """
    choose("method", name, method_names())
    from mmkd.distillation.base import DistillationMethod

    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except Exception as error:  # a user's file may raise anything
        file, line = where_raised(error, __path__)
        raise UserError(
            f"method {name}: cannot be imported: {file}, line {line}: {type(error).__name__}: {error}"
        ) from error
    method = getattr(module, "Method", None)
    if not (isinstance(method, type) and issubclass(method, DistillationMethod)):
        raise UserError(f"method {name}: {module.__file__}: define a class Method(DistillationMethod) in it")
    return method


def complete(config: Distillation) -> Distillation:
    """Fill in the method's default level and every setting of `config`, so that nothing stays implicit.

    Raises:
        UserError: unknown method, level or setting, or a setting's value that is not allowed.
    """
    method = load_method(config.method)
    if config.level is None and method.levels:
        config = config.model_copy(update={"level": method.levels[0]})
    if config.level is not None:
        if not method.levels:
            raise UserError(f"method {config.method} acts at no level (level is {config.level!r}): leave it out")
        choose(f"level of {config.method}", config.level, method.levels)
    return config.model_copy(update={"settings": method.parse(config).model_dump(mode="json")})
