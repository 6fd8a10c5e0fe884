"""Peak memory of a process that imports torch and does nothing else."""

import json

import torch

from fastrec.bench.machine import peak_bytes

if __name__ == "__main__":
    torch.zeros(1)
    print(json.dumps({"peak_bytes": peak_bytes()}))
