"""Build wheel and sdist, check them, and try each install in an environment that holds nothing else.

    python scripts/check_package.py             # make package
    python scripts/check_package.py --lowest    # make test-lowest: the lowest versions that are declared

It prints a line for each install: megabytes and seconds. The lowest versions are those of the sampler and of
``fastrec[train]``; torch is the version of constraints.txt, since lower ones have no CPU build everywhere.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = """
import sys
import numpy as np
from fastrec.sampling import NegativeSampler
sampler = NegativeSampler(np.array([0, 2, 3]), np.array([1, 4, 0]), n_items=6, n_negatives=4, seed=42)
drawn = sampler.sample(np.array([0, 0, 1]), epoch=0, start=0)
assert drawn.shape == (3, 4) and not {1, 4} & set(drawn[:2].ravel().tolist()), drawn
assert not {"torch", "polars", "scipy"} & set(sys.modules)
print(drawn.tolist())
"""
TRAIN = ["train", "--data", "synthetic-small", "--epochs", "1", "--no-progress", "--out", "run"]


def environment(folder: Path, *requirements: str, constrained: bool = True) -> Path:
    """A new environment with these installed; prints what it took. Returns its ``bin`` folder."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    before = size(folder)
    started = time.perf_counter()
    pin = ["-c", str(ROOT / "constraints.txt")] if constrained else []
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pin, *requirements)
    seconds = time.perf_counter() - started
    named = " ".join(r.rpartition("/")[2] for r in requirements)
    print(f"{named}: {(size(folder) - before) / 1e6:,.0f} MB in {seconds:.0f} s", flush=True)
    return folder / "bin"


def size(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file() and not f.is_symlink())


def run(*command: object, cwd: Path | None = None) -> str:
    """Run a command without this environment's Python path; its output.

    Raises
    ------
    SystemExit
        If it fails, with what it printed.
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, cwd=cwd, env=clean)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def build(folder: Path) -> tuple[Path, Path]:
    """(wheel, sdist), checked by twine; the wheel is built from the sdist."""
    tools = environment(folder / "tools", "build", "twine", constrained=False)
    run(tools / "python", "-m", "build", "--outdir", folder / "dist", ROOT)
    made = sorted((folder / "dist").iterdir())
    print(run(tools / "python", "-m", "twine", "check", "--strict", *made).strip())
    wheel, sdist = (next(f for f in made if f.name.endswith(end)) for end in (".whl", ".tar.gz"))
    return wheel, sdist


def lowest() -> list[str]:
    """What the sampler and ``fastrec[train]`` require, at the lowest versions declared, but for torch."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["train"]]
    pinned = re.search(r"^torch==\S+", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned
    return [pinned[0] if r.startswith("torch") else re.sub(r">=([\d.]+)$", r"==\1.*", r) for r in wanted]


def main() -> int:
    """Build and try; 0 if all of it works."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lowest", action="store_true", help="run the tests with the lowest declared versions")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fastrec-package-") as name:
        folder = Path(name)
        if args.lowest:
            test = ["pytest", "pytest-benchmark", "pytest-timeout", "pytest-xdist", "hypothesis", "jsonschema", "scipy"]
            bins = environment(folder / "lowest", *lowest(), *test, constrained=False)
            run(bins / "python", "-m", "pip", "install", "--quiet", "--no-deps", "-e", ROOT)
            tests = [
                str(ROOT / "tests" / t) for t in ("sampling", "data", "models", "runs", "inference", "test_facade.py")
            ]
            command = [str(bins / "python"), "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", *tests]
            return subprocess.run(command, cwd=ROOT).returncode
        wheel, _ = build(folder)
        sampler = environment(folder / "sampler", str(wheel))
        print(run(sampler / "python", "-c", SAMPLE, cwd=folder).strip())
        print(run(sampler / "python", "-m", "fastrec.bench", "--quick", "--case", "sampler", cwd=folder).strip())
        refused = subprocess.run([sampler / "fastrec", "train"], capture_output=True, text=True, cwd=folder)
        if refused.returncode != 1 or "pip install 'fastrec[train]'" not in refused.stderr:
            raise SystemExit(f"fastrec train without torch: {refused.returncode}, {refused.stderr}")
        train = environment(folder / "train", f"{wheel}[train]")
        print(run(train / "fastrec", *TRAIN, cwd=folder).strip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
