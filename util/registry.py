"""Classes by name: those of the suite, and the user's own as ``module:Class``."""

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from util.cli import UserError

SEPARATOR = ":"


class Registry(dict):
    """A dict, name -> class (or constructor). A name ``module:Class`` needs no entry: its module is imported on access.

    Python must be able to import the module: it is next to the scripts, or in a folder of ``PYTHONPATH``.

    Args:
        kind: Word for the classes in messages, such as "operation".
        entries: The suite's own classes, by name.
        base: Base class of the user's own classes; or "module:Class", which is imported when it is needed.
    """

    def __init__(self, kind: str, entries: Mapping[str, Any], base: Any) -> None:
        super().__init__(entries)
        self.kind, self.base = kind, base

    def __contains__(self, name: object) -> bool:
        """Whether the name has an entry, or is the ``module:Class`` of a class derived from the base.

        Raises:
            UserError: the name is a ``module:Class`` that cannot be used.
        """
        return super().__contains__(name) or (isinstance(name, str) and is_own(name) and self[name] is not None)

    def __missing__(self, name: str) -> Any:
        if not is_own(name):
            raise KeyError(name)
        base = import_class(self.base, self.kind) if isinstance(self.base, str) else self.base
        found = import_class(name, self.kind)
        if not (isinstance(found, type) and issubclass(found, base)):
            raise UserError(f"the {self.kind} {name} is not a class derived from {base.__module__}.{base.__qualname__}")
        return found

    def classes(self, names: Iterable[str]) -> dict[str, Any]:
        """Look up classes by name.

        Returns:
            Name -> class; names are converted to keys that `torch.nn.ModuleDict` accepts.
        """
        return {module_key(name): self[name] for name in names}


def is_own(name: str) -> bool:
    """Whether a name has the form ``module:Class``."""
    module, colon, attribute = name.partition(SEPARATOR)
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), attribute))


def import_class(name: str, kind: str) -> Any:
    """Import the class that ``module:Class`` names.

    Args:
        name: The name.
        kind: Word for the class in messages.

    Raises:
        UserError: the module does not exist, or has no such attribute.
    """
    module, _, attribute = name.partition(SEPARATOR)
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise UserError(
                f"the {kind} {name}: there is no module {error.name}; put its folder into PYTHONPATH"
            ) from None
        raise
    if not hasattr(found, attribute):
        raise UserError(f"the {kind} {name}: the module {module} has no {attribute}")
    return getattr(found, attribute)


def module_key(name: str) -> str:
    """Convert a name to a key of `torch.nn.ModuleDict`, which must not contain dots."""
    return name.replace(".", "/")
