"""The protocol between the bench and a baseline in an environment of its own.

The bench starts ``python PEER.py CSR.npz OPTIONS_JSON``. The script prints one JSON line when it is ready; for
every line ``run`` that it reads it does its work once and prints one JSON line. So baselines are timed in turn with the
other entries.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any


def serve(
    setup: Callable[[dict[str, Any], dict[str, Any]], tuple[Callable[[], dict[str, Any]], dict[str, Any]]],
) -> None:
    """Answer the bench until it closes the pipe.

    ``setup(csr, options)`` returns the work (a function that trains once over the positives and tells what happened)
    and facts for the record: ``version``, ``samples_per_run``, ``what``.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print must not get between the answers
    options = json.loads(sys.argv[2])
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LK_NUM_THREADS"):
        os.environ[variable] = str(options["threads"])
    import numpy as np

    with np.load(sys.argv[1], allow_pickle=False) as file:
        csr = {key: file[key] for key in file.files}
    run, facts = setup(csr, options)
    print(json.dumps(facts), file=answers, flush=True)
    for line in sys.stdin:
        if line.strip() != "run":
            raise SystemExit(f"unknown command {line!r}")
        print(json.dumps(run()), file=answers, flush=True)
