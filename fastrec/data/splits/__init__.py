"""The split rules, one file each: a file in this folder that registers a ``SplitRule`` is a value of ``split``.

Importing this package does not import NumPy; ``get`` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrec.registry import Folder

if TYPE_CHECKING:
    from fastrec.data.splits.parts.base import SplitRule

OTHERS = ("auto", "given")
"""Values of ``split`` that name no rule: the data's own split where there is one, else leave-one-out; and only that."""


_FOLDER: Folder[SplitRule] = Folder("split = ", __name__, "fastrec.data.splits.parts.base", OTHERS)


def names() -> list[str]:
    """Names of the rules, by their files and by ``register``."""
    return _FOLDER.names()


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
    return _FOLDER.get("leave-one-out" if name == "auto" else name)


def roles(how: str) -> tuple[str, str]:
    """What validation and test are made of, for people; ``how`` is ``Split.how``."""
    if how in names():
        return get(how).roles
    own = "as the data split them"
    return (own if how.count(", ") == 2 else "a random sample of each user's training interactions"), own
