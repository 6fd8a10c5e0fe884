"""The definition of a split rule, and the registry of rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastrec.data.interactions import Interactions
from fastrec.data.split import Split
from fastrec.registry import Registry


@dataclass(frozen=True)
class SplitRule:
    """A rule by which interactions are divided into train, validation and test.

    Parameters
    ----------
    name : str
        ``split = name`` in a config, and ``Split.how`` of what ``cut`` makes.
    cut : callable
        (interactions, test, validation, seed) -> Split: the two fractions and the seed of the draws.
    roles : (str, str)
        What validation and test are made of, for people.
    needs_times : bool
        Whether it reads the timestamps; an update then needs the complete log.
    takes_fraction : bool
        Whether ``test`` has an effect.
    draws_test, draws_validation : bool
        Whether the part is drawn, so that ``seed`` has an effect.
    validates : bool
        Whether ``validation`` has an effect.
    """

    name: str
    cut: Callable[[Interactions, float, float, int], Split]
    roles: tuple[str, str]
    needs_times: bool = False
    takes_fraction: bool = False
    draws_test: bool = False
    draws_validation: bool = False
    validates: bool = True

    def draws(self, validation: float) -> bool:
        """Whether the seed has an effect with this fraction of validation."""
        return self.draws_test or (self.draws_validation and validation > 0)


_REGISTRY: Registry[SplitRule] = Registry("split", lambda rule: rule.cut)


def register(rule: SplitRule) -> SplitRule:
    """Make a rule known by its name; raises ConfigError if another module has registered the name."""
    return _REGISTRY.put(rule.name, rule)


def registered() -> dict[str, SplitRule]:
    """Rules by name, of the modules imported so far; ``fastrec.data.splits.get`` imports what is missing."""
    return _REGISTRY.values()
