"""Peak memory and rate of one epoch of training from a saved log. Options: ``log``, ``out``, ``options``."""

import json
import sys

from fastrec.bench.machine import peak_bytes
from fastrec.data import Interactions, leave_one_out
from fastrec.training.job import train

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    split = leave_one_out(Interactions.open(given["log"]), validation=0.1, seed=42)
    result = train(split, out=given["out"], epochs=1, progress=False, tensorboard=False, **given["options"])
    print(json.dumps({"peak_bytes": peak_bytes(), "samples_per_s": result.samples_per_s}))
