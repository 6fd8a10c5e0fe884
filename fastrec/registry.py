"""Registries: what the modules of a folder register under a name. A new model, loss or exporter is one new file."""

from __future__ import annotations

import difflib
import pkgutil
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Generic, TypeVar

from fastrec.errors import ConfigError, shown

T = TypeVar("T")


class Registry(Generic[T]):
    """Values by name, and the module that registered each.

    Parameters
    ----------
    kind : str
        What they are, for messages: "loss".
    origin : callable
        value -> an object of the module that made it (its function, or the class itself): registering it again from
        the same place, as a reload does, replaces the value.
    """

    def __init__(self, kind: str, origin: Callable[[T], object]) -> None:
        self._kind, self._origin = kind, origin
        self._values: dict[str, T] = {}

    def put(self, name: str, value: T) -> T:
        """Make a value known by its name.

        Raises
        ------
        ConfigError
            If another module has registered the name.
        """
        there = self._values.setdefault(name, value)
        if there is not value and self._place(there) != self._place(value):
            word = "as" if isinstance(self._origin(there), type) else "by"
            raise ConfigError(f"{self._kind} {name!r} is registered {word} {self._place(there)} already")
        self._values[name] = value
        return value

    def _place(self, value: T) -> str:
        origin = self._origin(value)
        module = str(getattr(origin, "__module__", None))
        return f"{module}.{origin.__qualname__}" if isinstance(origin, type) else module

    def values(self) -> dict[str, T]:
        """Values by name, of the modules imported so far."""
        return dict(self._values)


class Folder(Generic[T]):
    """The names of a package whose modules each register a value; a module is imported when its name is asked for.

    Parameters
    ----------
    option : str
        How messages begin: "loss = ".
    package : str
        The package, whose modules are named as what they register, with ``_`` for ``-``.
    holder : str
        The module whose ``registered()`` has the values; listing names does not import it.
    more : tuple of str
        Further words that the option takes, for messages.
    """

    def __init__(self, option: str, package: str, holder: str, more: tuple[str, ...] = ()) -> None:
        self._option, self._package, self._holder, self._more = option, package, holder, more

    def names(self) -> list[str]:
        """Names, by the modules of the package and by ``register``."""
        path = sys.modules[self._package].__path__
        files = {m.name.replace("_", "-") for m in pkgutil.iter_modules(path) if not m.ispkg}
        holder = sys.modules.get(self._holder)
        return sorted(files | (set(holder.registered()) if holder is not None else set()))

    def get(self, name: str) -> T:
        """The value that is registered under a name.

        Raises
        ------
        ConfigError
            If there is none.
        """
        registered = import_module(self._holder).registered
        if name not in registered() and name in self.names():
            import_module(f"{self._package}.{name.replace('-', '_')}")
        found: dict[str, T] = registered()
        if name not in found:
            known = [*self._more, *self.names()]
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{self._option}{shown(name)}: must be one of {', '.join(known)}{hint}")
        return found[name]
