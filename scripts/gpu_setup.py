"""What gpu_check.sh needs before it starts: ``device`` prints the CUDA device, ``log FILE`` writes a synthetic log."""

from __future__ import annotations

import sys


def device() -> int:
    """Print the device and the versions; 1 if there is none."""
    import torch

    if not torch.cuda.is_available():
        print(f"torch {torch.__version__} finds no CUDA device: there is nothing to check here")
        return 1
    print(torch.cuda.get_device_name(0), torch.__version__, torch.version.cuda)
    return 0


def log(path: str) -> int:
    """Save a synthetic log of MovieLens-1M's shape."""
    from fastrec.data.synthetic import generator as synthetic

    synthetic.make("synthetic-1m").save(path)
    return 0


if __name__ == "__main__":
    sys.exit({"device": device, "log": log}[sys.argv[1]](*sys.argv[2:]))
