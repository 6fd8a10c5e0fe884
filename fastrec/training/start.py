"""Where training begins: from initial weights, or from those of a run that is updated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.engines.base import Engine
from fastrec.errors import CheckpointError, ConfigError
from fastrec.files import load_tensors, write_tensors
from fastrec.runs import Run

NEW = "new.safetensors"
"""File of a run folder: CSR indices of the positives that are visited, where those are only the new ones."""
_ROWS = ("user", "item")


@dataclass(frozen=True)
class Start:
    """Where training begins; by default at the first epoch, from initial weights.

    Parameters
    ----------
    epoch, step : int
        Epochs and steps before this run's own: draws and the optimiser count on from them, the schedule begins there.
    only : int64[n], optional
        CSR indices of the training positives that are visited; None means all.
    weights : dict of str to Tensor
        Of the parent by name. Tables with a row per user or item may be shorter than the model's.
    state : (dict of str to Tensor, dict), optional
        The parent's optimiser state ("optimizer.NAME.KEY") and its engine's record; None starts it from zero.
    about : dict
        The run's record of it (``manifest["update"]``); empty for a run that updates none.
    resumed : bool
        Whether the run has a folder already, whose last checkpoint is where it goes on.
    """

    epoch: int = 0
    step: int = 0
    only: NDArray[np.int64] | None = None
    weights: dict[str, Any] = field(default_factory=dict)
    state: tuple[dict[str, Any], dict[str, Any]] | None = None
    about: dict[str, Any] = field(default_factory=dict)
    resumed: bool = False

    @staticmethod
    def recorded(run: Run) -> Start:
        """The start that a run folder records, without weights and state: its checkpoints have those.

        Raises
        ------
        CheckpointError
            If the file of new positives is missing or altered.
        """
        about = run.manifest.get("update")
        if about is None:
            return Start(resumed=True)
        only = None
        if about["positives"] == "new":
            path = run.verified(NEW)
            only = load_tensors(path)["positives"].numpy()
        return Start(about["first_epoch"], about["first_step"], only, about=about, resumed=True)

    def record(self, run: Run) -> None:
        """Put it into a run folder just made."""
        if not self.about:
            return
        files = dict(run.manifest["files"])
        if self.only is not None:
            files[NEW] = write_tensors(run.path / NEW, {"positives": self.only})
        run.record(update=self.about, files=files)

    def fill(self, model: Any) -> None:
        """Put the parent's weights over the initial ones: rows of users and items that it had, and what all share.

        Raises
        ------
        ConfigError
            If a weight has no counterpart, or one of another shape that is not a table of rows.
        """
        if not self.weights:
            return
        import torch

        mine, roles = model.state_dict(), model.roles()
        if missing := sorted(mine.keys() ^ self.weights.keys()):
            raise ConfigError(
                f"{type(model).__name__}: has weights {', '.join(missing)} that the run or the model lacks, so it "
                "cannot be updated; train again"
            )
        with torch.no_grad():
            for name, value in self.weights.items():
                place = mine[name]
                if roles.get(name) in _ROWS and value.shape[0] <= place.shape[0]:
                    place[: value.shape[0]] = value
                elif value.shape == place.shape:
                    place.copy_(value)
                else:
                    raise ConfigError(
                        f"{type(model).__name__}.{name}: {list(value.shape)} in the run, {list(place.shape)} with the "
                        "new data, and it is not a table of users or items, so it cannot be updated; train again"
                    )

    def restore(self, engine: Engine) -> None:
        """Give the engine the parent's optimiser state; rows of newcomers start from zero.

        Raises
        ------
        CheckpointError
            If the state does not fit.
        """
        if self.state is None:
            return
        tensors, meta = self.state
        model = engine.model
        roles, mine = model.roles(), model.state_dict()
        kept = {f"model.{name}": value for name, value in mine.items()}
        for key, value in tensors.items():
            name = _parameter(key, roles)
            rows = roles[name] in _ROWS and value.ndim and value.shape[0] < mine[name].shape[0]
            kept[key] = _longer(value, mine[name].shape[0]) if rows else value
        try:
            engine.load_state(kept, meta)
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"the optimiser state of the run does not fit ({error}); train again") from error


def _parameter(key: str, names: Any) -> str:
    """The parameter that a state belongs to: "weights.0" of "optimizer.weights.0.exp_avg"."""
    name = key.removeprefix("optimizer.").rpartition(".")[0]
    if name not in names:
        raise CheckpointError(f"the checkpoint holds {key!r}, of no weight of this model; train again")
    return name


def _longer(value: Any, rows: int) -> Any:
    import torch

    made = torch.zeros((rows, *value.shape[1:]), dtype=value.dtype)
    made[: value.shape[0]] = value
    return made
