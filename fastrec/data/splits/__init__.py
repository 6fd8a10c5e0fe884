"""The split rules, one file each: a file in this folder that registers a ``SplitRule`` is a value of ``split``.

Importing this package does not import NumPy; ``get`` does.
"""

from __future__ import annotations

import difflib
import pkgutil
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from fastrec.errors import ConfigError, shown

if TYPE_CHECKING:
    from fastrec.data.splits.parts.base import SplitRule

OTHERS = ("auto", "given")
"""Values of ``split`` that name no rule: the data's own split where there is one, else leave-one-out; and only that."""


def names() -> list[str]:
    """Names of the rules, by their files and by ``register``."""
    files = {m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__) if not m.ispkg}
    base = sys.modules.get("fastrec.data.splits.parts.base")
    return sorted(files | (set(base.registered()) if base is not None else set()))


def values() -> list[str]:
    """What the option ``split`` may be."""
    return [*OTHERS, *names()]


def get(name: str) -> SplitRule:
    """The rule that is registered under a name; "auto" gives that of leave-one-out.

    Raises
    ------
    ConfigError
        If there is none.
    """
    from fastrec.data.splits.parts.base import registered

    name = "leave-one-out" if name == "auto" else name
    if name not in registered() and name in names():
        import_module(f"{__name__}.{name.replace('-', '_')}")
    if name not in registered():
        near = difflib.get_close_matches(name, values(), 1)
        raise ConfigError(
            f"split = {shown(name)}: must be one of {', '.join(values())}"
            + (f"; did you mean {near[0]}?" if near else "")
        )
    return registered()[name]


def roles(how: str) -> tuple[str, str]:
    """What validation and test are made of, for people; ``how`` is ``Split.how``."""
    if how in names():
        return get(how).roles
    own = "as the data split them"
    return (own if how.count(", ") == 2 else "a random sample of each user's training interactions"), own
