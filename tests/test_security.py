"""Nothing in the package runs code that a file brings, starts a shell, or reads a pickle."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest

from fastrec.data.content import LIMIT_VARIABLE
from fastrec.data.datasets import registry
from tests.conftest import ROOT

CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.execve", "os.spawnv",
    "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open",
    "torch.load", "torch.jit.load", "torch.hub.load", "yaml.load", "pd.read_pickle", "pandas.read_pickle",
    "joblib.load", "dill.load", "dill.loads", "cloudpickle.load", "cloudpickle.loads", "importlib.util.exec_module",
}  # fmt: skip
IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "pty", "telnetlib", "ftplib"}
ALLOWED = {
    ("fastrec/jit.py", "imports pickle"): "the class of the errors that Numba's own cache raises",
    (
        "fastrec/cli/completion.py",
        "passes shell=args.shell",
    ): "the name of a shell, for the script that completes in it",
}


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of a name or attribute; "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


def forbidden(text: str) -> list[tuple[int, str]]:
    """(line, what) of each use of what runs foreign code."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, f"imports {a.name}") for a in node.names if a.name.split(".")[0] in IMPORTS]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in IMPORTS:
            found.append((node.lineno, f"imports {node.module}"))
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            given = {k.arg: k.value for k in node.keywords}
            if name in CALLS:
                found.append((node.lineno, f"calls {name}"))
            for option, fine in (("shell", False), ("allow_pickle", False), ("weights_only", True)):
                if option in given and not (isinstance(given[option], ast.Constant) and given[option].value is fine):
                    found.append((node.lineno, f"passes {option}={ast.unparse(given[option])}"))
        elif isinstance(node, ast.Attribute) and node.attr in ("CERT_NONE", "_create_unverified_context"):
            found.append((node.lineno, f"uses {node.attr}"))
    return found


def test_nothing_runs_foreign_code() -> None:
    found = {
        (path.relative_to(ROOT).as_posix(), what): line
        for path in sorted((ROOT / "fastrec").rglob("*.py"))
        for line, what in forbidden(path.read_text())
    }
    assert found.keys() == ALLOWED.keys(), found


@pytest.mark.parametrize(
    "line",
    [
        "eval('1')", "exec(text)", "import pickle", "from pickle import loads", "pickle.loads(b)", "os.system('ls')",
        "subprocess.run('ls', shell=True)", "subprocess.Popen(x, shell=y)", "torch.load(p)", "__import__(name)",
        "np.load(p, allow_pickle=True)", "torch.load(p, weights_only=False)", "context.verify_mode = ssl.CERT_NONE",
    ],
)  # fmt: skip
def test_the_guard_sees_each_kind(line: str) -> None:
    assert forbidden(line)


@pytest.mark.parametrize(
    "line", ["model.eval()", "np.load(p, allow_pickle=False)", "column.list.eval(x)", "re.compile(x)"]
)
def test_the_guard_passes_what_is_harmless(line: str) -> None:
    assert not forbidden(line)


def test_git_is_the_only_program_that_is_started() -> None:
    users = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "fastrec").rglob("*.py"))
        if "subprocess" in path.read_text()
    ]
    assert users == ["fastrec/runs/provenance.py"]


def test_what_is_fetched_has_a_pinned_hash_and_comes_by_https() -> None:
    fetched = [known for known in registry.SETS.values() if known.urls]
    assert len(fetched) >= 6
    for known in fetched:
        assert known.n_bytes
        assert known.sha256 or known.md5, known.name
        assert all(url.startswith("https://") for url in known.urls), known.name


def test_the_policy_names_files_and_targets_that_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    paths = re.findall(r"`((?:tests|benchmarks|docs|scripts)/[^` ]+|[a-z]+\.txt)`", text)
    assert len(paths) >= 3
    assert not [path for path in paths if not (ROOT / path).exists()]
    targets = re.findall(r"`make ([a-z-]+)`", text)
    assert targets
    makefile = (ROOT / "Makefile").read_text()
    assert not [target for target in targets if f"\n{target}:" not in makefile]
    assert f"`{LIMIT_VARIABLE}`" in text
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [
        re.split("[<>=]", line)[0] for line in (*needed["dependencies"], *needed["optional-dependencies"]["train"])
    ]
    assert not [name for name in names if name.lower() not in text.lower()], (
        "a dependency that the policy does not name"
    )
