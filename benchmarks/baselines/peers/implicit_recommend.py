"""implicit's ``recommend`` for every user by vectors that are given, seen items left out; in memory, no file."""

import sys

import numpy as np
from serve import serve

K = 10


def setup(csr, options):
    import implicit
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix

    users, items = np.ascontiguousarray(csr["users"]), np.ascontiguousarray(csr["vectors"])
    model = AlternatingLeastSquares(factors=users.shape[1], num_threads=options["threads"])
    model.user_factors, model.item_factors = users, items
    seen = csr["items"]
    matrix = csr_matrix((np.ones(seen.size, np.float32), seen, csr["indptr"]), shape=(len(users), len(items)))
    everyone = np.arange(len(users))

    def lists():
        return model.recommend(everyone, matrix, N=K, filter_already_liked_items=True)

    found, scores = lists()
    np.savez(sys.argv[1] + ".lists.npz", items=found, scores=scores)  # for the bench to check

    def run():
        return {"n": int(lists()[0].size)}

    return run, {
        "version": implicit.__version__,
        "samples_per_run": len(users),
        "what": "implicit's recommend by the same vectors, in memory, no file",
    }


serve(setup)
