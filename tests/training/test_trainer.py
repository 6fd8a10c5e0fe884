"""The loop every engine shares: learning, early stopping, signals, and what ends a run badly."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from fastrec.engines.minibatch.engine import flushed_denormals
from fastrec.engines.minibatch.steps import AutogradStep, Options
from fastrec.errors import FastrecError
from fastrec.runs.checkpoint import Checkpoints
from fastrec.training.tracking import ProgressBar, Tracker, duration
from fastrec.training.trainer import Trainer
from tests.helpers.training import DOT, make_engine


def make(model: str = "gmf", **options: Any) -> Trainer:
    engine = options.pop("engine", None) or make_engine(model)
    return Trainer(engine, epochs=options.pop("epochs", 3), progress=False, **options)


@pytest.mark.parametrize("model", DOT)
@pytest.mark.parametrize("loss", ["bce", "bpr"])
def test_the_loss_falls_and_every_step_counts(model: str, loss: str) -> None:
    engine = make_engine(model, loss=loss, lr=lambda _: 0.02)
    per_epoch = -(-engine.n_positives // 16)
    t = make(engine=engine, epochs=20)
    first = engine.advance(t.state.cursor, 10**9)
    assert first.n_positives == engine.n_positives
    assert first.n_samples == engine.n_positives * 5
    assert first.n_steps == per_epoch
    assert t.run() == "all epochs"
    assert t.state.step == 20 * per_epoch
    assert t.state.total_samples == 20 * first.n_samples
    last = engine.advance(t.state.cursor, 10**9)
    assert last.loss_sum / last.n_samples < 0.8 * first.loss_sum / first.n_samples


def test_runs_repeat_to_the_bit_and_seeds_matter() -> None:
    one, two = make(), make()
    one.run()
    two.run()
    assert all(torch.equal(v, two.engine.model.state_dict()[k]) for k, v in one.engine.model.state_dict().items())


def scripted(values: list[float]) -> Any:
    left = list(values)
    return lambda: {"full:NDCG@10": left.pop(0)}


def test_early_stopping_keeps_the_best_epoch() -> None:
    t = make(epochs=10, patience=2, validate=scripted([0.1, 0.3, 0.2, 0.3, 0.9]))
    kept: dict[str, Any] = {}
    inner = t.validate

    def validate() -> dict[str, float]:
        kept[str(t.state.epoch + 1)] = t.engine.model.user_factors.detach().clone()
        return inner()  # type: ignore[misc]

    t.validate = validate
    assert t.run() == "early stopping"
    assert (t.state.epoch, t.state.best_epoch, t.state.best) == (4, 2, 0.3)
    assert torch.equal(t.engine.model.user_factors, kept["2"])


def test_patience_zero_never_stops_and_keeps_the_last() -> None:
    t = make(epochs=4, patience=0, validate=scripted([0.4, 0.3, 0.2, 0.1]))
    assert t.run() == "all epochs"
    assert (t.state.epoch, t.state.best_epoch) == (4, None)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_checkpoints_and_ends(tmp_path: Path, number: int) -> None:
    engine = make_engine()
    t = make(engine=engine, epochs=50, checkpoints=Checkpoints(tmp_path))
    inner, calls = engine.advance, []

    def advance(cursor: Any, n: int) -> Any:
        calls.append(n)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return inner(cursor, n)

    engine.advance = advance  # type: ignore[method-assign]
    before = signal.getsignal(number)
    assert t.run() == "interrupted"
    assert signal.getsignal(number) is before
    assert len(calls) == 3
    assert Checkpoints(tmp_path).load()[1]["trainer"]["step"] == t.state.step


def test_a_loss_that_is_no_number_ends_the_run_with_the_checkpoint_intact(tmp_path: Path) -> None:
    engine = make_engine(optimizer="sgd", lr=lambda step: 0.1 if step < 9 else 1e30)
    t = make(engine=engine, epochs=50, checkpoints=Checkpoints(tmp_path), checkpoint_every=4, log_every=4)
    with pytest.raises(FastrecError, match=r"the loss is (nan|inf).*lower lr.*intact"):
        t.run()
    tensors, _ = Checkpoints(tmp_path).load()
    assert all(v.isfinite().all() for v in tensors.values())


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
def test_out_of_memory_says_what_to_lower(error: Exception) -> None:
    engine = make_engine()

    def advance(*_: Any) -> Any:
        raise error

    engine.advance = advance  # type: ignore[method-assign]
    with pytest.raises(FastrecError, match=r"out of memory.*lower batch_size"):
        make(engine=engine).run()


def test_out_of_memory_after_the_last_step_and_a_full_disk_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(error: Exception) -> Any:
        def fail(*_: Any, **__: Any) -> Any:
            raise error

        return fail

    t = make(epochs=1, checkpoints=Checkpoints(tmp_path / "c"), patience=1, validate=lambda: {"full:NDCG@10": 0.1})
    monkeypatch.setattr(
        t.checkpoints, "save_best", failing(RuntimeError("unable to mmap: Cannot allocate memory (12)"))
    )
    with pytest.raises(FastrecError, match=r"out of memory.*lower batch_size"):
        t.run()
    t = make(epochs=9, checkpoints=Checkpoints(tmp_path / "run" / "c"))
    with monkeypatch.context() as patch:
        patch.setattr("fastrec.runs.checkpoint.write_tensors", failing(FastrecError("x: cannot be written")))
        with pytest.raises(FastrecError, match=r"cannot be written\. No checkpoint was written$"):
            t.run()
    t = make(epochs=9, checkpoints=Checkpoints(tmp_path / "run" / "c"))
    t.run(stop_after=1)
    monkeypatch.setattr("fastrec.runs.checkpoint.write_tensors", failing(FastrecError("x: cannot be written")))
    with pytest.raises(FastrecError, match=r"cannot be written\. The checkpoint of step 1 is intact: resume with"):
        t.run()


def test_other_errors_pass_unchanged() -> None:
    engine = make_engine()

    def advance(*_: Any) -> Any:
        raise RuntimeError("a bug")

    engine.advance = advance  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="a bug"):
        make(engine=engine).run()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_metrics_of_a_resumed_run_are_those_of_an_uninterrupted_one(tmp_path: Path) -> None:
    def world(name: str) -> Trainer:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        t = make(engine=make_engine(), log_every=2, checkpoints=Checkpoints(folder / "c"))
        t.lr = t.engine.lr  # type: ignore[attr-defined]
        return t

    whole = world("whole")
    whole.tracker = Tracker(tmp_path / "whole", tensorboard=False)
    whole.run()
    whole.tracker.close()
    first = world("cut")
    first.tracker = Tracker(tmp_path / "cut", tensorboard=False)
    first.run(stop_after=13)
    first.tracker.record("train", 999, {"loss": 1.0})  # written after the checkpoint: a resumed run must cut it off
    first.tracker.close()
    second = world("cut")
    second.resume(*second.checkpoints.load())  # type: ignore[union-attr]
    second.tracker = Tracker(tmp_path / "cut", tensorboard=False, length=second.state.metrics_bytes)
    second.run()
    second.tracker.close()
    timed = {"samples_per_s", "epoch_s", "train_s", "wall_s"}
    plain = [
        [{k: v for k, v in line.items() if k not in timed} for line in lines(tmp_path / n)] for n in ("whole", "cut")
    ]
    assert plain[0] == plain[1]
    assert [x["step"] for x in plain[0] if x["kind"] == "train"] == list(range(2, whole.state.step + 1, 2))


def test_tensorboard_holds_losses_metrics_and_the_config(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = Tracker(tmp_path)
    tracker.options({"lr": 0.1})
    tracker.record("epoch", 7, {"epoch": 1, "loss": 0.5, "val full:NDCG@10": 0.25, "samples_per_s": 9, "epoch_s": 2.5})
    tracker.outcome({"lr": 0.1, "layers": [8, 4], "model": "mf"}, {"full ranking HR@10": 0.5})
    tracker.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("epoch/loss")] == [(7, 0.5)]
    shown = {"epoch/loss", "val/full:NDCG@10", "epoch/samples_per_s", "epoch/epoch_s"}
    assert set(events.Tags()["scalars"]) == shown
    plugin = events.summary_metadata
    contents = {tag: metadata.plugin_data.plugin_name for tag, metadata in plugin.items()}
    assert list(contents.values()).count("hparams") == 3, "options, metrics and end of a run"
    assert events.Tags()["tensors"] == ["config/text_summary"]


def test_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> int:
        raise OSError(28, "No space left on device")

    tracker = Tracker(tmp_path, tensorboard=False)
    tracker._file.write = lambda _: full()  # type: ignore[method-assign]
    with pytest.raises(FastrecError, match=r"No space left.*No checkpoint was written$"):
        tracker.record("train", 1, {"loss": 1.0})
    Checkpoints(tmp_path / "checkpoints").save(1, {"x": torch.arange(3)}, {})
    monkeypatch.setattr(os, "fsync", lambda _: full())
    with pytest.raises(
        FastrecError, match=r"No space left.*step 1 is intact: resume with `fastrec train --resume \S+`$"
    ):
        _ = tracker.length


def test_l2_by_autograd_equals_l2_by_hand() -> None:
    """The two paths of the torch engine take the same step to float32 rounding."""
    engines = [make_engine("gmf", l2=0.5, optimizer="sgd", lr=lambda _: 0.006) for _ in range(2)]
    engines[1]._step = AutogradStep(engines[1].model, Options(optimizer="sgd", l2=0.1), 0.48)
    for engine in engines:
        engine.advance(make(engine=engine).state.cursor, 5)
    for name, p in engines[0].model.state_dict().items():
        torch.testing.assert_close(p, engines[1].model.state_dict()[name], rtol=1e-5, atol=1e-6, msg=name)


def test_tiny_numbers_are_flushed_while_training_alone() -> None:
    tiny = torch.tensor(1e-39)
    with flushed_denormals():
        assert (tiny * 0.5).item() == 0.0
        with flushed_denormals():
            pass
        assert (tiny * 0.5).item() == 0.0, "what was on before stays on"
    assert (tiny * 0.5).item() > 0.0, "the host program gets its own setting back"


# what the bar says


def test_a_run_of_over_a_minute_is_estimated_once(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar(True, epochs=30, samples=10)
    bar.estimate(754.0, selects=True)
    bar.estimate(900.0, selects=True)
    assert capsys.readouterr().err == "about 13 min of training for 30 epochs at this rate, less where it stops early\n"
    for shown, seconds in ((True, 59.0), (False, 900.0)):
        ProgressBar(shown, epochs=30, samples=10).estimate(seconds, selects=False)
    assert capsys.readouterr().err == ""
    assert [duration(s) for s in (61, 119.6, 121, 7100, 9000)] == ["61 s", "120 s", "2 min", "118 min", "2.5 h"]


def test_rates_leave_out_the_first_step_and_estimates_come_from_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a clock that shows 100 s for the first call of the engine, which compiles, and 2 s for a later step."""
    t = Trainer(make_engine("gmf"), epochs=9, progress=True, log_every=1)
    clock, advance = [0.0], t.engine.advance

    def slow(cursor: Any, n_steps: int) -> Any:
        done = advance(cursor, n_steps)
        clock[0] += 2.0 * done.n_steps if t.state.step else 100.0
        return done

    monkeypatch.setattr(t.engine, "advance", slow)
    monkeypatch.setattr("fastrec.training.trainer.time.perf_counter", lambda: clock[0])
    t.run()
    samples, per_epoch = t.engine.n_positives * 5, -(-t.engine.n_positives // 16)
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("about ")
    assert sum(line.startswith("about ") for line in said) == 1
    seconds = 2.0 * per_epoch
    assert t.rate_of_epoch == pytest.approx(samples / seconds)
    assert t.state.train_s == pytest.approx(9 * seconds + 98.0)
    assert said[-1].endswith(f"{samples / seconds / 1e6:.2f} M samples/s")
