"""The command line as a user meets it: a small log goes in, titles come out, bad input gets one clear line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fastrec.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--dim", "8", "--epochs", "2", "--batch-size", "64", "--no-progress", "--no-tensorboard"]


def fastrec(*args: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    return subprocess.run(
        [sys.executable, "-m", "fastrec", *args], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240
    )


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 users, 40 items with string ids, times; each user likes one half of the items."""
    rng = np.random.default_rng(3)
    rows = ["who,what,stars,at"]
    for user in range(60):
        liked = rng.choice(20, size=10, replace=False) + 20 * (user % 2)
        rows += [f"u{user:02d},i{item:02d},{rng.integers(1, 6)},{1_000_000 + k}" for k, item in enumerate(liked)]
    path = tmp_path_factory.mktemp("log") / "log.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


COLUMNS = ["--user-col", "who", "--item-col", "what", "--rating-col", "stars", "--time-col", "at"]


@pytest.fixture(scope="module")
def run(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    done = fastrec("train", "--data", str(log), *COLUMNS, *SMALL, "--out", str(out), cwd=log.parent)
    assert done.returncode == 0, done.stderr
    assert "HR@10" in done.stdout
    assert "samples/s" in done.stdout
    assert f"fastrec recommend {out} --user" in done.stdout
    return out


def test_a_run_folder_holds_what_other_work_relies_on(run: Path) -> None:
    for name in ("config.toml", "metrics.jsonl", "model.safetensors", "manifest.json"):
        assert (run / name).is_file()


def test_recommend_leaves_out_what_the_user_knows(run: Path, log: Path) -> None:
    done = fastrec("recommend", str(run), "--user", "u07", "-k", "5", "--json", cwd=log.parent)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [r["rank"] for r in rows] == [1, 2, 3, 4, 5]
    assert set(rows[0]) == {"rank", "item_id", "title", "score"}
    known = {line.split(",")[1] for line in log.read_text().splitlines() if line.startswith("u07,")}
    assert not known & {r["item_id"] for r in rows}
    scores = [r["score"] for r in rows]
    assert scores == sorted(scores, reverse=True)


def test_evaluate_repeats_the_runs_own_figures(run: Path, log: Path) -> None:
    done = fastrec("evaluate", str(run), "--json", cwd=log.parent)
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    kept = json.loads((run / "manifest.json").read_text())["result"]["metrics"]
    assert set(kept) == set(again)
    for protocol, figures in kept.items():
        for name, value in figures.items():
            if "@" in name:
                assert again[protocol][name] == pytest.approx(value, abs=1e-9)


def test_users_that_are_not_in_train_have_a_row_of_their_own(tmp_path: Path) -> None:
    """A file of its own split, as people bring it: test holds a new user, and an item that train lacks."""
    train = [f"u{u},i{i}" for u in range(8) for i in range(30) if (u + i) % 3]
    test = [f"u{u},i{i}" for u in range(8) for i in range(30) if (u + i) % 6 == 0] + ["u0,unheard", "new,i1", "new,i2"]
    for name, rows in (("train", train), ("test", test)):
        (tmp_path / f"{name}.csv").write_text("\n".join(["user,item", *rows]) + "\n")
    done = fastrec("train", "--data", ".", *SMALL, "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    note = "note: 1 test positives are of 1 items that are not in train: counted as misses"
    shown = fastrec("evaluate", "run", cwd=tmp_path)
    for text in (done.stdout, shown.stdout):
        assert "99 candidates, users not in train" in text
        assert "full ranking, users not in train" in text
        assert note in text
        assert "note: 1 of 9 test users (2 of 43 test positives) are not in train" in text
    assert "positives" in shown.stdout


def test_export_gives_vectors_whose_product_orders_like_recommend(run: Path, log: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.npz"
    assert fastrec("export", str(run), "--to", "npz", "--out", str(out), cwd=log.parent).returncode == 0
    with np.load(out, allow_pickle=False) as v:
        user = v["user_ids"].tolist().index("u07")
        scores = v["item_vectors"] @ v["user_vectors"][user]
        order = [str(v["item_ids"][i]) for i in np.argsort(-scores, kind="stable")]
    rows = json.loads(fastrec("recommend", str(run), "--user", "u07", "-k", "5", "--json", cwd=log.parent).stdout)
    ids = [r["item_id"] for r in rows]
    assert [i for i in order if i in ids] == ids
    refused = fastrec("export", str(run), "--to", "npz", "--out", str(out), cwd=log.parent)
    assert refused.returncode != 0
    assert "exists" in refused.stderr


def test_what_was_merged_or_left_out_is_said_with_a_count(tmp_path: Path) -> None:
    rows = [f'"u {u}",i{i},{1000 + i}' for u in range(9) for i in range(u % 3, 12, 2)]
    rows += [f'"all, of them",i{i},{i}' for i in range(12)] + ["alone,i3,7", rows[0], rows[1], rows[2]]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,timestamp", *rows]) + "\n")
    done = fastrec("train", "--data", "log.csv", *SMALL, "--out", "my run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "note: 3 duplicate (user, item) rows merged, the latest kept" in done.stdout
    assert "note: 1 users with one interaction stay in train, not in test" in done.stdout
    assert "fastrec recommend 'my run' --user 'all, of them' -k 10" in done.stdout, "to be pasted into a shell"
    assert "trained" in done.stdout
    shown = fastrec("recommend", "my run", "--user", "all, of them", cwd=tmp_path)
    assert (shown.returncode, shown.stdout.strip()) == (
        0, "user all, of them has interacted with every item: nothing is left to recommend"
    )  # fmt: skip
    assert "title" not in fastrec("recommend", "my run", "--user", "alone", cwd=tmp_path).stdout


def test_two_runs_with_one_seed_have_byte_identical_weights(run: Path, log: Path, tmp_path: Path) -> None:
    out = tmp_path / "second"
    args = ["train", "--data", str(log), *COLUMNS, *SMALL, "--threads", "1", "--out", str(out)]
    assert fastrec(*args, cwd=log.parent).returncode == 0
    assert (out / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_options_come_from_toml_and_the_run_keeps_the_resolved_config(log: Path, tmp_path: Path) -> None:
    from fastrec.config import read_toml

    (tmp_path / "c.toml").write_text(
        f'data = "{log}"\nuser_col = "who"\nitem_col = "what"\ntime_col = "at"\ndim = 4\nepochs = 1\nprogress = false\n'
    )
    out = tmp_path / "r"
    done = fastrec("train", "--config", "c.toml", "--dim", "6", "--patience", "0", "--out", str(out), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    kept = read_toml(out / "config.toml")
    assert (kept.model.dim, kept.training.epochs, kept.training.patience) == (6, 1, 0)


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["recommend", "RUN", "--user", "nobody"], 1, ["nobody", "user"]),
        (["recommend", "no-such-run", "--user", "1"], 1, ["no-such-run"]),
        (["evaluate", "no-such-run"], 1, ["no-such-run"]),
        (["train", "--data", "no/such/folder"], 1, ["no/such/folder"]),
        (["train", "--data", "ml-1n"], 1, ["ml-1m"]),
        (["train", "--data", "LOG", *COLUMNS, "--out", "RUN"], 2, ["exist"]),
        (["train", "--dim", "0"], 2, ["dim = 0"]),
        (["train", "--preset", "nope"], 2, ["nope", "ncf-gmf-8"]),
        (["train", "--data", "LOG", "--user-col", "nope"], 1, ["nope", "who"]),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else None,
)
def test_bad_input_is_one_clear_message(
    args: list[str], code: int, words: list[str], run: Path, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"RUN": str(run), "LOG": str(log)}
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    assert main([places.get(a, a) for a in args]) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    for word in words:
        assert word in captured.err
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


@pytest.mark.parametrize("command", [["nope"], ["train", "--dim", "many"], ["export", "x"]])
def test_usage_errors_exit_with_2(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_sigterm_while_loading_ends_cleanly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def terminated(_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr("fastrec.training.job.prepare", terminated)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["train", "--data", "ml-100k"]) == 130
    assert signal.getsignal(signal.SIGTERM) is before
    assert "interrupted" in capsys.readouterr().err


def test_every_config_field_is_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    from fastrec.config import OPTIONS

    with pytest.raises(SystemExit):
        main(["train", "--help-all"])
    text = capsys.readouterr().out
    for name in OPTIONS:
        assert f"--{name.replace('_', '-')}" in text


def test_doctor_version_and_list(capsys: pytest.CaptureFixture[str]) -> None:
    import fastrec as package

    assert main(["doctor"]) == 0
    assert "torch" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert package.__version__ in capsys.readouterr().out
    assert main(["data", "list"]) == 0
    assert "ml-1m" in capsys.readouterr().out


def test_data_info_counts(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "info", str(log), *COLUMNS]) == 0
    out = capsys.readouterr().out
    assert "600" in out
    assert "60" in out


def test_make_train_falls_back_to_synthetic_and_says_so_first_and_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from fastrec.cli import train as cli
    from fastrec.data.datasets import registry
    from fastrec.errors import DataNotFoundError

    def nothing(name: str, **_: object) -> Path:
        raise DataNotFoundError(f"{name}: not found; fill some folder")

    monkeypatch.setattr(registry, "resolve", nothing)
    monkeypatch.setattr(cli, "FALLBACK", "synthetic-small")
    code = main(["train", "--synthetic-if-missing", *SMALL, "--epochs", "1", "--out", str(tmp_path / "r")])
    out = capsys.readouterr().out.strip().splitlines()
    assert code == 0
    assert "synthetic-small" in out[0]
    assert "synthetic-small" in out[-1]
    assert main(["train", *SMALL, "--out", str(tmp_path / "q")]) == 1  # without the flag it is an error
