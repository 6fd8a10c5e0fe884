"""One object for a trained run: lists, filters, similar items and users, scores; by source ids, as frames or arrays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from fastrec import Recommender, runs
from fastrec.data import Catalog
from fastrec.data.catalog import movies_frame
from fastrec.data.split import Split
from fastrec.errors import CheckpointError, ConfigError, DataError
from fastrec.inference import top_k as top_k_module
from fastrec.inference.top_k import Candidates, Csr, VectorScorer, top_k
from fastrec.models import build
from fastrec.training.fit import Result
from tests.helpers.fakes import Mlp, interactions, random_parts

ROOT = Path(__file__).resolve().parents[2]
KINDS = ["mf", "gmf", "mlp", "neumf"]


def make(folder: Path, kind: str = "mf", n_users: int = 9, n_items: int = 60, **fields: Any) -> runs.Run:
    """A run of a random model on random parts; source ids are text, in no order, and odd."""
    rng = np.random.default_rng(7)
    fields = {
        "user_ids": np.array([f"-u {k:02d}é" for k in rng.permutation(n_users)]),
        "item_ids": np.array([f"{k:03d}" for k in rng.permutation(n_items)]),
        **fields,
    }
    parts = [
        interactions([part.row(u).tolist() for u in range(n_users)], n_items, part.name, **fields)
        for part in random_parts(rng, n_users, n_items)
    ]
    run = runs.create(folder, config={"model": kind, "dim": 4}, split=Split(*parts))
    model = build(kind, n_users=n_users, n_items=n_items, dim=4, seed=3, init_std=1.0)
    if kind == "mf":
        for name in ("user_bias", "item_bias", "bias"):
            getattr(model, name).data.normal_(generator=torch.Generator().manual_seed(1))
    run.save_model(model)
    return runs.open_run(run.path)


def catalogued(folder: Path) -> runs.Run:
    """Four items, two with genres that overlap, and one that nobody has."""
    films = movies_frame(
        [10, 20, 30, 40, 99],
        ["A (1990)", "B <i>\x1b[31m (1995)", "C", "D (2000)", "E (2001)"],
        ["Drama|War", "Drama", "", "Comedy", "Sci-Fi"],
    )
    fields: dict[str, Any] = {
        "item_ids": np.array([10, 20, 30, 40]),
        "titles": np.array(["A (1990)", "B <i>\x1b[31m (1995)", "C", "D (2000)"]),
        "catalog": Catalog(movies=films),
    }
    parts = [interactions(rows, 4, "films train", **fields) for rows in ([[0], [1]], [[], []], [[], [2]])]
    run = runs.create(folder, config={"model": "mf", "dim": 4}, split=Split(*parts))
    run.save_model(build("mf", n_users=2, n_items=4, dim=4, seed=3, init_std=1.0))
    return runs.open_run(run.path)


def logits(run: runs.Run) -> np.ndarray:
    with torch.no_grad():
        return run.model().score_all(torch.arange(run.split().n_users)).numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seen", [False, True])
def test_lists_are_the_models_best(tmp_path: Path, kind: str, seen: bool) -> None:
    run = make(tmp_path / "run", kind)
    rec, split = Recommender.load(run.path), run.split()
    scores = logits(run)
    if not seen:
        for part in (split.train, split.validation, split.test):
            scores[part.users, part.items] = -np.inf
    frame = rec.recommend(split.train.user_ids, 60, seen=seen)
    assert frame.columns == ["user_id", "rank", "item_id", "score"]
    for user, name in enumerate(split.train.user_ids.tolist()):
        rows = frame.filter(pl.col("user_id") == name)
        order = [i for i in np.argsort(-scores[user], kind="stable") if np.isfinite(scores[user, i])]
        assert rows["rank"].to_list() == list(range(1, len(order) + 1)), "fewer items left, fewer rows"
        assert rows["item_id"].to_list() == split.train.item_ids[order].tolist()
        assert np.allclose(rows["score"].to_numpy(), scores[user, order], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_pairs_are_the_models(tmp_path: Path, kind: str) -> None:
    run = make(tmp_path / "run", kind)
    rec, all_scores = Recommender(run), logits(run)
    users, items = np.repeat(np.arange(9), 60), np.tile(np.arange(60), 9)
    assert np.allclose(rec.score(users, items, ids="contiguous"), all_scores.ravel(), atol=1e-5)
    assert np.allclose(rec.score(rec.user_ids[4], rec.item_ids), all_scores[4], atol=1e-5)
    with pytest.raises(ConfigError, match="2 users and 3 items"):
        rec.score([0, 1], [0, 1, 2], ids="contiguous")


@pytest.mark.parametrize("kind", ["mf", "gmf"])
def test_mf_and_gmf_need_neither_torch_nor_polars(tmp_path: Path, kind: str) -> None:
    run = make(tmp_path / "run", kind)
    code = (
        "import sys; sys.modules['torch'] = sys.modules['polars'] = None\n"
        f"import fastrec; rec = fastrec.Recommender.load({str(run.path)!r})\n"
        "got = rec.recommend(rec.user_ids, 5, output='arrays'); assert got['rank'].size == 45\n"
        "rec.similar(rec.item_ids[:2], 3, output='arrays'); rec.similar_users(rec.user_ids[:1], output='arrays')\n"
        "rec.score(rec.user_ids[0], rec.item_ids); rec.user_vectors; repr(rec); rec._repr_html_()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_arrays_have_the_columns_of_the_frame(tmp_path: Path) -> None:
    rec = Recommender(catalogued(tmp_path / "run"))
    frame, arrays = rec.recommend([0, 1], 3), rec.recommend([0, 1], 3, output="arrays")
    assert list(arrays) == frame.columns == ["user_id", "rank", "item_id", "title", "score"]
    assert all(arrays[name].tolist() == frame[name].to_list() for name in arrays)
    inner = rec.recommend([1, 0], 3, ids="contiguous", output="arrays")
    assert inner["user_id"].tolist() == [1, 1, 0, 0, 0]
    assert set(inner["item_id"].tolist()) <= {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ({"where": {"genres": "Drama"}}, [10, 20]),
        ({"where": {"genres": ["War", "Comedy"]}}, [10, 40]),
        ({"where": {"year": (1995, None)}}, [20, 40]),
        ({"where": {"year": (None, 1995), "genres": "War"}}, [10]),
        ({"where": {"year": 2000}}, [40]),
        ({"where": pl.col("year").is_null()}, [30]),
        ({"allow": [40, 10]}, [10, 40]),
        ({"deny": [40, 10]}, [20, 30]),
        ({"allow": [40, 10], "deny": "10"}, [40]),
        ({"allow": []}, []),
        ({"where": {}}, [10, 20, 30, 40]),
    ],
)
def test_filters(tmp_path: Path, filters: dict[str, Any], left: list[int]) -> None:
    rec = Recommender(catalogued(tmp_path / "run"))
    for user, known in ((0, {10}), (1, {20, 30})):
        assert sorted(rec.recommend(user, 9, seen=True, **filters)["item_id"].to_list()) == left
        assert set(rec.recommend(user, 9, **filters)["item_id"].to_list()) == set(left) - known


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"genre": "Drama"}, "no column 'genre', only item, title, title_ascii, year, genres; did you mean genres?"),
        ({"genres": "Dramas"}, "no item has genres 'Dramas'; there are 'Drama'"),
        ({"genres": "Sci-Fi"}, "no item has genres 'Sci-Fi'"),
        ({"year": ("a", None)}, "bounds of a range are numbers"),
        ({"title": (1, 2)}, "a range is"),
        ({"year": "x"}, "the column holds Int16"),
        (pl.col("nope") > 1, "nope"),
        (pl.col("year"), "must give a boolean"),
        (3, "where is a int"),
    ],
)
def test_bad_filters_are_refused(tmp_path: Path, where: Any, words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        Recommender(catalogued(tmp_path / "run")).recommend(0, where=where)
    assert words in str(refusal.value)


def test_an_older_run_says_what_it_lacks(tmp_path: Path) -> None:
    run = catalogued(tmp_path / "run")
    run.manifest = {k: v for k, v in run.manifest.items() if k != "catalog"}
    run.record(files={k: v for k, v in run.manifest["files"].items() if not k.endswith(".parquet")})
    rec = Recommender.load(run.path)
    assert rec.recommend(0, 1)["title"].to_list() != [None]
    assert rec.items.columns == ["item", "title"]
    assert "none: made by an earlier fastrec" in repr(rec)
    with pytest.raises(ConfigError, match="made by an earlier fastrec, which kept no table of items: train again"):
        rec.recommend(0, where={"genres": "Drama"})
    bare = Recommender(make(tmp_path / "bare"))
    with pytest.raises(ConfigError, match="came without a table of items"):
        bare.recommend(0, where={"genres": "Drama"}, ids="contiguous")


@pytest.mark.parametrize("kind", ["mf", "mlp"])
def test_similar_is_by_cosine_and_leaves_itself_out(tmp_path: Path, kind: str) -> None:
    run = make(tmp_path / "run", kind)
    rec = Recommender(run)
    model = run.model().state_dict()
    for side, ask, n in (("item", rec.similar, 60), ("user", rec.similar_users, 9)):
        tables = [t.numpy() for name, t in model.items() if side in name and t.ndim == 2 and t.shape[0] == n]
        table = np.concatenate(tables, axis=1)
        unit = table / np.linalg.norm(table, axis=1, keepdims=True)
        cosine = unit @ unit.T
        np.fill_diagonal(cosine, -np.inf)
        got = ask(np.arange(n), 3, ids="contiguous")
        assert got.columns[:3] == [f"{side}_id", "rank", "similar_id"]
        assert got["similar_id"].to_numpy().reshape(n, 3).tolist() == np.argsort(-cosine, axis=1)[:, :3].tolist()
        assert np.allclose(got["score"].to_numpy().reshape(n, 3), -np.sort(-cosine, axis=1)[:, :3], atol=1e-5)
    assert rec.similar(rec.item_ids[5], 1)["item_id"].to_list() == [rec.item_ids[5]]


def test_vectors_order_the_items(tmp_path: Path) -> None:
    run = make(tmp_path / "run", "mf")
    rec = Recommender(run)
    order = np.argsort(-(rec.user_vectors @ rec.item_vectors.T + rec.item_bias), axis=1)
    assert (order == np.argsort(-logits(run), axis=1)).all()
    with pytest.raises(ConfigError, match="a mlp scores through a network and has no vectors"):
        _ = Recommender(make(tmp_path / "mlp", "mlp")).user_vectors


def test_unknown_ids_name_the_first_and_the_count(tmp_path: Path) -> None:
    rec = Recommender(make(tmp_path / "run"))
    known = rec.user_ids[0]
    with pytest.raises(DataError, match="user 'nobody' and 1 more: not among the 9 users"):
        rec.recommend([known, "nobody", 7])
    assert set(rec.recommend([known, "nobody", 7], skip_unknown=True)["user_id"].to_list()) == {known}
    with pytest.raises(DataError, match="item '7': not among the 60 items"):
        rec.recommend(known, allow=["007", "7"])
    with pytest.raises(DataError, match="user 9: contiguous ids run from 0 to 8; 1 are outside"):
        rec.recommend([0, 9], ids="contiguous")
    with pytest.raises(DataError, match="contiguous ids are integers"):
        rec.recommend("0", ids="contiguous")
    with pytest.raises(ConfigError, match="k=0"):
        rec.recommend(known, 0)
    with pytest.raises(ConfigError, match="output='rows'"):
        rec.recommend(known, output="rows")


@pytest.mark.parametrize("form", [list, np.array, pl.Series, tuple, lambda ids: iter(ids)])
def test_ids_come_in_many_forms(tmp_path: Path, form: Any) -> None:
    text = Recommender(make(tmp_path / "text"))
    assert text.recommend(form(text.user_ids[:2].tolist()), 1)["user_id"].to_list() == text.user_ids[:2].tolist()
    numbers = Recommender(make(tmp_path / "numbers", user_ids=np.array([50, 4, -3, 2**40, 9, 8, 7, 6, 5])))
    for wanted in ([-3, 2**40, 4], ["-3", str(2**40), "004"]):
        assert numbers.recommend(form(wanted), 1)["user_id"].to_list() == [-3, 2**40, 4]


def test_no_users_give_an_empty_frame(tmp_path: Path) -> None:
    rec = Recommender(catalogued(tmp_path / "run"))
    assert rec.recommend([], 3).shape == (0, 5)
    assert rec.recommend([], 3, output="arrays")["score"].size == 0


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_lists_of_everyone_are_written_in_blocks(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastrec.inference.recommender.BLOCK", 4)
    rec, said = Recommender(make(tmp_path / "run")), []
    out = tmp_path / f"lists.{suffix}"
    assert rec.recommend_all(3, out=out, progress=lambda done, total: said.append((done, total))) == out
    assert said == [(4, 9), (8, 9), (9, 9)]
    readers = {
        "parquet": pl.read_parquet,
        "csv": lambda p: pl.read_csv(p, schema_overrides={"item_id": pl.String}),
        "jsonl": pl.read_ndjson,
    }
    got, want = readers[suffix](out), rec.recommend_all(3)
    assert got.drop("score").rows() == want.drop("score").rows()
    assert np.allclose(got["score"], want["score"], atol=1e-5)
    with pytest.raises(ConfigError, match="exists and is not overwritten"):
        rec.recommend_all(3, out=out)
    with pytest.raises(ConfigError, match=r"must end in \.parquet, \.csv, \.jsonl"):
        rec.recommend_all(3, out=tmp_path / "lists.txt")
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"lists.{suffix}", "run"]


def test_what_fails_while_a_file_is_written_leaves_none(tmp_path: Path) -> None:
    model = Mlp(np.ones((9, 1)), np.full((60, 1), np.nan))
    rec = Recommender(make(tmp_path / "run"), model=model)
    with pytest.raises(DataError, match="not finite"):
        rec.recommend_all(3, out=tmp_path / "lists.parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_altered_weights_are_found(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    path = run.path / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="is not the file this run wrote"):
        Recommender.load(run.path).recommend(0, ids="contiguous")


def test_a_run_without_weights_is_refused(tmp_path: Path) -> None:
    run = runs.create(
        tmp_path / "run", config={"model": "mf"}, split=Split(*random_parts(np.random.default_rng(1), 3, 9))
    )
    with pytest.raises(CheckpointError, match="has no weights yet"):
        Recommender(run).recommend(0)


def test_html_and_repr_escape_titles_and_names(tmp_path: Path) -> None:
    run = catalogued(tmp_path / "a <b> run")
    rec = Recommender.load(run.path)
    assert "&lt;b&gt;" in rec._repr_html_()
    assert "items: item, title, title_ascii, year, genres" in repr(rec)
    result = Result(run, {"full ranking": {"HR@10": 0.5}}, "all epochs", 1, None, None, 1.0, 2.0)
    assert isinstance(result.recommender(), Recommender)
    assert "HR@10 (full ranking) 0.5000" in repr(result)
    assert "&lt;b&gt;" in result._repr_html_()


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (4, 64), (100, 1000)])
@pytest.mark.parametrize("k", [1, 5, 70])
def test_top_k_does_not_depend_on_tiles_and_orders_ties_by_item(shape: tuple[int, int], k: int) -> None:
    rng = np.random.default_rng(5)
    queries = rng.integers(-2, 3, (6, 2)).astype(np.float32)
    vectors = rng.integers(-2, 3, (150, 2)).astype(np.float32)  # small integers: many exact ties
    bias = rng.integers(0, 2, 150).astype(np.float32)
    mask = rng.random(150) < 0.5
    hidden = [[int(i) for i in np.flatnonzero(rng.random(150) < 0.2)] for _ in range(6)]
    csr = Csr(np.cumsum([0, *map(len, hidden)]).astype(np.int64), np.concatenate(hidden).astype(np.int32))
    scores = queries @ vectors.T + bias
    for candidates in (None, Candidates.of(mask, 150), Candidates.of(np.zeros(150, np.bool_), 150)):
        scorer = VectorScorer(queries, vectors, bias)
        scorer.shape = shape
        best = top_k(scorer, np.arange(6, dtype=np.int32), k, hidden=[csr], candidates=candidates, threads=2)
        for row in range(6):
            legal = [i for i in range(150) if i not in hidden[row] and (candidates is None or candidates.allowed[i])]
            want = sorted(legal, key=lambda i: (-scores[row, i], i))[:k]
            assert best.items[row, : best.counts[row]].tolist() == want
            assert best.scores[row, : best.counts[row]].tolist() == scores[row, want].tolist()
            assert (best.items[row, best.counts[row] :] == -1).all()


def test_memory_does_not_grow_with_the_catalogue() -> None:
    """A tile of scores is all that is held: 300,000 items are scored a few thousand at a time."""
    import tracemalloc

    rng = np.random.default_rng(2)
    queries, vectors = np.ones((2000, 1), np.float32), rng.random((300_000, 1), dtype=np.float32)
    scorer, rows = VectorScorer(queries, vectors), np.arange(2000, dtype=np.int32)
    top_k(scorer, rows[:1], 10)
    tracemalloc.start()
    best = top_k(scorer, rows, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert best.items[0].tolist() == np.argsort(-vectors[:, 0], kind="stable")[:10].tolist()
    assert peak < 4 * top_k_module.ROWS * top_k_module.TILE + 5 * 300_000 + (8 << 20)


def test_kernels_as_plain_python() -> None:
    from fastrec.inference import kernels

    scores, items, counts = np.full((1, 3), -np.inf, np.float32), np.full((1, 3), -1, np.int32), np.zeros(1, np.int64)
    tile = np.array([[1, 5, 5, -np.inf, 7, 2]], np.float32)
    kernels.push.py_func(tile, np.zeros(6, np.float32), 10, scores, items, counts, 0, 1)
    kernels.finish.py_func(scores, items, counts, 0, 1)
    assert items.tolist() == [[14, 11, 12]]
