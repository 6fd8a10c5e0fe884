"""implicit's BPR on the CPU: two samples per pair; pairs whose negative is a positive are skipped and not counted."""

import numpy as np
from serve import serve

EPOCHS = 4


def setup(csr, options):
    import implicit
    from implicit.cpu.bpr import BayesianPersonalizedRanking
    from scipy.sparse import csr_matrix

    indptr, items = csr["indptr"], csr["items"]
    shape = (indptr.size - 1, int(csr["n_items"]))
    matrix = csr_matrix((np.ones(items.size, np.float32), items, indptr), shape=shape)
    model = BayesianPersonalizedRanking(
        factors=options["dim"], iterations=EPOCHS, num_threads=options["threads"], random_state=42
    )
    # Positives by degree, negatives by popularity: the fraction of pairs that its check skips, exactly.
    popularity = np.bincount(items, minlength=shape[1]) / items.size
    cumulated = np.concatenate([[0.0], np.cumsum(popularity[items])])
    mass = cumulated[indptr[1:]] - cumulated[indptr[:-1]]
    skipped = float((np.diff(indptr) / items.size * mass).sum())
    before = [None]

    def run():
        model.fit(matrix, show_progress=False)
        now = float(np.abs(model.user_factors).sum())
        moved, before[0] = now != before[0], now
        return {"finite": bool(np.isfinite(now)), "moved": moved}

    return run, {
        "version": implicit.__version__,
        "samples_per_run": int(2 * EPOCHS * items.size * (1 - skipped)),
        "what": f"implicit BPR, 2 samples per pair, skips {100 * skipped:.0f} % of pairs",
        "skipped_fraction": skipped,
    }


serve(setup)
