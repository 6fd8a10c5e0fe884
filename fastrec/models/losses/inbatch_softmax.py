"""In-batch softmax: the positive against its own negatives and the positives of the other rows, corrected by logQ.

B batch rows, N negatives, I items.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastrec.models.parts.loss import Loss, register


def sampled_softmax(logits: Tensor, log_expected: Tensor | None = None, masked: Tensor | None = None) -> Tensor:
    """Mean of ``softmax_rows``."""
    return softmax_rows(logits, log_expected, masked).mean()


def softmax_rows(logits: Tensor, log_expected: Tensor | None = None, masked: Tensor | None = None) -> Tensor:
    """float32[B]: cross-entropy of each row's positive against sampled items.

    Parameters
    ----------
    logits : float32[B, C]
        Column 0 the positive, the others sampled items.
    log_expected : float32[B, C-1], optional
        log of the number of times each sampled item is expected among the row's samples. Subtracted, it makes the sum
        over samples an unbiased estimate of the sum over all the user's negatives.
    masked : bool[B, C-1], optional
        Samples to leave out: those that are positives of the row's user.

    Notes
    -----
    Source: Yi et al., "Sampling-bias-corrected neural modeling for large corpus item recommendations", RecSys 2019,
    section 3 (logQ); the balance heuristic for two proposals is Veach and Guibas, SIGGRAPH 1995.
    """
    others = logits[:, 1:]
    if log_expected is not None:
        others = others - log_expected
    if masked is not None:
        others = others.masked_fill(masked, float("-inf"))
    return torch.logsumexp(torch.cat((logits[:, :1], others), 1), 1) - logits[:, 0]


class InBatchSoftmax:
    """``sampled_softmax`` over a row's own negatives and the positives of the other rows.

    An item is expected N / (I - degree) times among the row's N uniform negatives, and (B - 1) * count / E times among
    the other rows' positives; the log of the sum is subtracted (logQ). Other rows' positives that the row's user has
    in the training history are left out, so that no positive is pushed down.

    Parameters
    ----------
    indptr, items : int64[U+1], int32[E]
        The training CSR: history, counts and degrees.
    n_items : int
    device : torch.device
    budget : int
        Bytes up to which the history is a bitmap; beyond, it is searched.

    Cost
    ----
    B * B scores a step, and as many look-ups: one byte each by bitmap, log2(E) probes by search.
    """

    def __init__(
        self,
        indptr: NDArray[np.int64],
        items: NDArray[np.int32],
        n_items: int,
        *,
        device: torch.device | str = "cpu",
        budget: int = 1 << 28,
    ) -> None:
        n_users, self._n_items = indptr.size - 1, n_items
        users = np.repeat(np.arange(n_users), np.diff(indptr))
        self._popularity = torch.from_numpy(np.bincount(items, minlength=n_items) / items.size).float().to(device)
        self._legal = torch.from_numpy(n_items - np.diff(indptr)).float().to(device)
        self._bitmap = self._keys = None
        if n_users * -(-n_items // 8) <= budget:
            bits = np.zeros((n_users, -(-n_items // 8)), np.uint8)
            np.bitwise_or.at(bits, (users, items >> 3), np.left_shift(1, items & 7).astype(np.uint8))
            self._bitmap = torch.from_numpy(bits).to(device)
        else:
            self._keys = torch.from_numpy(users * n_items + items.astype(np.int64)).to(device)

    def seen(self, users: Tensor, items: Tensor) -> Tensor:
        """bool[B, C]: whether user b has item c in the training history."""
        rows, columns = users.long().unsqueeze(1), items.long().unsqueeze(0)
        if self._bitmap is not None:
            return (self._bitmap[rows, columns >> 3] >> (columns & 7) & 1).bool()
        assert self._keys is not None
        wanted = rows * self._n_items + columns
        found = torch.searchsorted(self._keys, wanted).clamp_(max=self._keys.numel() - 1)
        return self._keys[found] == wanted

    def __call__(
        self, logits: Tensor, cross: Tensor, users: Tensor, items: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """The loss.

        Parameters
        ----------
        logits : float32[B, 1+N]
        cross : float32[B, B]
            Each row's user against every row's positive.
        users, items : int32[B], int32[B, 1+N]
        weights : float32[B], optional
            Of each row's loss.
        """
        n = users.numel()
        masked = torch.zeros((n, logits.shape[1] - 1 + n), dtype=torch.bool, device=logits.device)
        masked[:, logits.shape[1] - 1 :] = self.seen(users, items[:, 0])
        sampled = ((items.shape[1] - 1) / self._legal[users.long()]).unsqueeze(1)
        in_batch = (n - 1) * self._popularity
        expected = torch.cat((sampled + in_batch[items[:, 1:].long()], sampled + in_batch[items[:, 0].long()]), 1)
        found = softmax_rows(torch.cat((logits, cross), 1), expected.log(), masked)
        return (found if weights is None else found * weights).mean()


INBATCH_SOFTMAX = register(
    Loss(
        "inbatch-softmax",
        sampled_softmax,
        in_batch=InBatchSoftmax,
        rows=softmax_rows,
        per_row=True,
        similarities=("dot", "cosine"),
    )
)
