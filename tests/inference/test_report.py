"""The report of a run: what it shows, that it loads nothing, and that no title or name steers it."""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import fastrec
from fastrec import runs
from fastrec.cli.main import main
from fastrec.data import Catalog
from fastrec.data.catalog import movies_frame
from fastrec.data.split import Split
from fastrec.errors import CheckpointError, ConfigError, DataError, MissingPackageError
from fastrec.evaluation.score import FULL, score_split
from fastrec.inference.report import charts, facts
from fastrec.models import build
from tests.helpers.fakes import interactions, random_parts

N_USERS, N_ITEMS = 12, 20
HOSTILE = "</style><script>alert(1)</script>\x1b[31m\u202e\n<img src=x onerror=alert(1)> Żółć"


def made(folder: Path, *, loss: str = "bce", weights: bool = True, tested: bool = True) -> runs.Run:
    ids = [f"i{k}" for k in range(N_ITEMS)]
    titles = [HOSTILE, *[f"Film {k} (19{k + 10})" for k in range(1, N_ITEMS)]]
    genres = [("Drama|<b>War</b>", "Drama", "", "Comedy")[k % 4] for k in range(N_ITEMS)]
    users = pl.DataFrame({"user": range(N_USERS), "gender": [f"<i>{'FM'[k % 2]}" for k in range(N_USERS)]})
    fields = {"item_ids": np.array(ids), "titles": np.array(titles), "user_ids": np.arange(N_USERS)}
    fields["catalog"] = Catalog(movies=movies_frame(ids, titles, genres), users=users)
    parts = random_parts(np.random.default_rng(5), N_USERS, N_ITEMS, (8, 2, 2 if tested else 0))
    rows = [[part.row(u).tolist() for u in range(N_USERS)] for part in parts]
    split = Split(*[interactions(part, N_ITEMS, f"{HOSTILE} train", **fields) for part in rows])
    config = {"model": "mf", "dim": 4, "loss": loss, "candidates": 6, "negatives": 2}
    run = runs.create(folder, config=config, split=split)
    lines = [{"kind": "train", "step": s, "loss": 1 / s, "samples_per_s": 100 * s, "lr": 0.1} for s in range(1, 9)]
    for epoch, value in ((1, 0.125), (2, 0.25)):
        lines.append({"kind": "epoch", "step": 4 * epoch, "epoch": epoch, "loss": 0.5, "val full:NDCG@10": value})
    (folder / "metrics.jsonl").write_text("\n".join([*map(json.dumps, lines), '{"kind": "tr']))
    if weights:
        model = build("mf", n_users=N_USERS, n_items=N_ITEMS, dim=4, seed=3, init_std=1.0)
        run.save_model(model)
        metrics = score_split(model, split, n_candidates=6)
        ended = {"stopped": "all epochs", "epochs_done": 2, "best_epoch": 2, "best_validation": 0.25}
        speed = {"seconds": 1.5, "samples_per_s": 2.5e6}
        others = {HOSTILE: {"metrics": metrics}}
        run.record(result={**ended, **speed, "metrics": metrics, "notes": [HOSTILE], "baselines": others})
    return run


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that what has to be closed is closed in order."""

    OPEN_ENDED = ("meta", "li", "th", "td")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.OPEN_ENDED:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.words.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = made(tmp_path_factory.mktemp("runs") / "a <b> run")
    path = fastrec.report(run.path)
    assert path == run.path / "report.html"
    assert fastrec.report(run.path) == path, "its own page is written again"
    runs.open_run(run.path).model()  # the folder is as valid as before
    return path.read_text("utf-8")


def test_it_loads_nothing_and_runs_nothing(page: str) -> None:
    found = Page(page)
    assert not {"script", "img", "link", "iframe", "object", "i"} & set(found.tags)
    assert found.tags.count("b") == 5, "of the tiles, none of a genre"
    for name, value in found.attributes:
        assert name not in ("src", "srcset")
        assert not name.startswith("on")
        assert name != "href" or value.startswith("#")
    assert "url(" not in page
    assert "//" not in page.replace("<!doctype", "")
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in found.attributes
    assert not any(ord(c) < 32 and c != "\n" for c in page)
    assert "\u202e" not in page
    assert "prefers-color-scheme:dark" in page


def test_it_shows_curves_metrics_groups_lists_and_provenance(page: str) -> None:
    words = " ".join(Page(page).words)
    wanted = ("training loss", "validation full:NDCG@10", "samples per second", "learning rate", "epoch 2, kept",
                 "6 candidates", "full ranking", "± is half of a 95 % interval", "coverage", "calibration",
                 "activity", "popularity", "genres", "gender", "<b>War</b>", "own items that score highest",
                 "recommended", "Film 3 (1913)", "1913 · Comedy", "numpy", "sha256", "candidates", "2.5 M")  # fmt: skip
    for said in wanted:
        assert said in words, said
    assert "Żółć" in words
    assert words.count("<script>alert(1)</script>\\x1b[31m\\u202e\\x0a") > 3, "name, title, note and baseline"


def test_the_figures_are_those_of_evaluate(page: str, tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    full = fastrec.evaluate(run, beyond=True, by=["gender"])[FULL]
    for name in ("NDCG@10", "MAP@10", "AUC"):
        assert f"{full[name]:.4f} <small>± {1.96 * full['standard_errors'][name]:.4f}" in page
    assert f"{full['lists']['coverage']:.4f}" in page
    women = full["groups"]["gender"]["<i>F"]
    assert f"<td>&lt;i&gt;F<td class=n>{women['n_positives']}<td class=n>{women['NDCG@10']:.4f}" in page


def test_curves_are_the_records(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    loss, quality, speed, rate = facts.curves(run)
    assert (loss.lines[0].x, loss.lines[0].y) == ([1, 2], [0.5, 0.5])
    assert loss.lines[1].x[:3] == [0.25, 0.5, 0.75], "steps as parts of an epoch"
    assert (quality.title, quality.lines[0].y, quality.at) == ("validation full:NDCG@10", [0.125, 0.25], 2)
    assert speed.lines[0].y == [100.0 * s for s in range(1, 9)]
    assert rate.lines[0].y == [0.1] * 8


def test_calibration_bins_count_positives(tmp_path: Path) -> None:
    rec = fastrec.Recommender(made(tmp_path / "run"))
    chart = facts.calibration(rec)
    assert chart is not None
    assert chart.diagonal
    x, y = chart.lines[0].x, chart.lines[0].y
    assert list(x) == sorted(x)
    assert all(0 < p < 1 for p in x)
    test = rec.run.split().test
    n = int((rec.run.split().train.degrees[test.users] > 0).sum())
    sizes = [part.size for part in np.array_split(np.arange(3 * n), 10)]
    assert sum(s * f for s, f in zip(sizes, y)) == pytest.approx(n), "one of three pairs is a positive"
    other = facts.calibration(fastrec.Recommender(made(tmp_path / "bpr", loss="bpr")))
    assert other is not None
    assert not other.diagonal
    assert "no probabilities" in other.note


def test_genre_shares_against_a_loop(tmp_path: Path) -> None:
    rec = fastrec.Recommender(made(tmp_path / "run"))
    found = facts.genre_shares(rec)
    assert found is not None
    names, chosen, listed, divergence = found
    assert names == ["<b>War</b>", "Comedy", "Drama"]
    assert sum(chosen) == pytest.approx(1)
    assert sum(listed) == pytest.approx(1)
    split, own, total = rec.run.split(), rec.items["genres"].to_list(), np.zeros(3)
    for user in np.flatnonzero(split.train.degrees).tolist():
        mine = np.zeros(3)
        for item in split.train.row(user).tolist():
            for genre in own[item]:
                mine[names.index(genre)] += 1 / len(own[item])
        total += mine
    np.testing.assert_allclose(chosen, total / total.sum())
    assert divergence > 0


def test_users_are_chosen_or_spread_over_activity(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    rec = fastrec.Recommender(run)
    degrees = run.split().train.degrees
    shown = facts.some_users(rec, None)
    assert len(shown) == 5
    assert degrees[shown].tolist() == sorted(degrees[shown])
    text = fastrec.report(run, out=tmp_path / "page.html", users=[7], k=3).read_text()
    assert text.count("<summary>user ") == 1
    assert "<summary>user 7: " in text
    with pytest.raises(DataError, match="user 99"):
        fastrec.report(run, out=tmp_path / "other.html", users=[99])


def test_a_run_without_weights_or_test_part_says_so(tmp_path: Path) -> None:
    text = fastrec.report(made(tmp_path / "early", weights=False)).read_text()
    assert "the run has no weights yet" in text
    assert "training loss" in text
    run = made(tmp_path / "untested", tested=False)
    assert "the data have no test part" in fastrec.report(run).read_text()


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = made(tmp_path / "run"), tmp_path / "page.html"
    assert main(["report", str(run.path), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    with pytest.raises(ConfigError, match="exists and is not overwritten"):
        fastrec.report(run, out=out)
    with pytest.raises(ConfigError, match="there is no folder"):
        fastrec.report(run, out=tmp_path / "none" / "page.html")
    (run.path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="not the file this run wrote"):
        fastrec.report(run.path)


def test_png_files_are_charts(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="PNG charts need the extra `report`")
    from PIL import Image

    run = made(tmp_path / "run")
    fastrec.report(run, png=tmp_path / "charts")
    found = sorted(p.name for p in (tmp_path / "charts").iterdir())
    assert {"training-loss.png", "calibration.png", "by-genres.png", "by-activity.png"} <= set(found)
    for name in found:
        with Image.open(tmp_path / "charts" / name) as image:
            assert image.width == 840
            assert len(set(image.convert("L").tobytes())) > 10, "something is drawn"


def test_without_matplotlib_the_install_line_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPackageError, match=r"matplotlib is not installed: pip install 'fastrec\[report\]'"):
        fastrec.report(made(tmp_path / "run"), png=tmp_path / "charts")


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-3, 11, [0, 5, 10]), (2, 2, [2]), (0.2417, 0.2693, 5)],
)
def test_ticks_are_round_and_inside(low: float, high: float, want: object) -> None:
    found = charts.ticks(low, high)
    assert len(found) == want if isinstance(want, int) else found == pytest.approx(want)
    assert all(low <= tick <= high for tick in found)


def test_long_lines_are_thinned_and_what_is_not_finite_is_left_out() -> None:
    line = charts.Line("x", range(10_000), [float("nan"), *range(9_999)])
    found = charts.thinned(line)
    assert (len(found), found[0], found[-1]) == (charts.MOST_POINTS, (1, 0), (9_999, 9_998))
    assert charts.svg(charts.Chart("empty", "x", [charts.Line("x", [1], [float("inf")])])) == ""
    assert "<circle" in charts.svg(charts.Chart("one", "x", [charts.Line("x", [1], [2])]))
