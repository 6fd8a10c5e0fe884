"""Cornac's BPR: two samples per pair; pairs whose negative is a positive are skipped and not counted."""

import numpy as np
from serve import serve

EPOCHS = 4


def setup(csr, options):
    import cornac

    indptr, items, n_items = csr["indptr"], csr["items"], int(csr["n_items"])
    users = np.repeat(np.arange(indptr.size - 1), np.diff(indptr))
    data = cornac.data.Dataset.from_uir(zip(users.tolist(), items.tolist(), [1.0] * items.size))
    model = cornac.models.BPR(k=options["dim"], max_iter=EPOCHS, num_threads=options["threads"], verbose=False)
    degrees = np.diff(indptr)
    skipped = float((degrees / items.size * degrees / data.num_items).sum())
    before = [None]

    def run():
        model.fit(data)  # goes on from the factors that it holds
        now = float(np.abs(model.u_factors).sum())
        moved, before[0] = now != before[0], now
        return {"finite": bool(np.isfinite(now)), "moved": moved}

    assert data.num_items <= n_items
    return run, {
        "version": cornac.__version__,
        "samples_per_run": int(2 * EPOCHS * items.size * (1 - skipped)),
        "what": f"Cornac BPR, 2 samples per pair, skips {100 * skipped:.0f} % of pairs",
        "skipped_fraction": skipped,
    }


serve(setup)
