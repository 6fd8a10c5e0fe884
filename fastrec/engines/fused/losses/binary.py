"""BCE and BPR of one row, by the number of the loss."""

from __future__ import annotations

from fastrec.engines.fused.losses.spec import BPR
from fastrec.jit import inline
from fastrec.models.losses.bce import row as bce_row
from fastrec.models.losses.bpr import row as bpr_row


@inline
def loss_gradient(x, e, n, loss, product):  # type: ignore[no-untyped-def]
    """Replace the logits x[:n] by the gradients of their summed loss; returns (loss, product), see ``losses.bce``."""
    if loss == BPR:
        return bpr_row(x, e, n, product)
    return bce_row(x, e, n, product)
