"""From the import to the first negatives, in a process that has done nothing else: seconds, and what was compiled."""

import time

started = time.perf_counter()

import json  # noqa: E402
import sys  # noqa: E402

import numpy as np  # noqa: E402

from fastrec.sampling import NegativeSampler  # noqa: E402

if __name__ == "__main__":
    imported = time.perf_counter()
    indptr = np.array([0, 2, 3])
    sampler = NegativeSampler(indptr, np.array([1, 4, 0]), n_items=6)
    drawn = sampler.sample([0, 0, 1], epoch=0, start=0)
    ended = time.perf_counter()
    rooms = [vars(module) for name, module in sys.modules.items() if name.startswith("fastrec.sampling.")]
    kernels = {id(x): x for room in rooms for x in room.values() if hasattr(x, "py_func") and hasattr(x, "stats")}
    counts = [kernel.stats for kernel in kernels.values()]
    print(
        json.dumps(
            {
                "import_s": imported - started,
                "sample_s": ended - imported,
                "drawn": drawn.tolist(),
                "compiled": sum(sum(count.cache_misses.values()) for count in counts),
                "from_disk": sum(sum(count.cache_hits.values()) for count in counts),
            }
        )
    )
