"""What a run tells about itself."""

import logging
import re

import pytest
import torch

from antehoc_hf.training.progress import calm
from antehoc_hf.training.trainer import AnteHocTrainer


def train(tiny, tmp_path, model=None, data=None, **options):
    trainer = AnteHocTrainer(
        model=model or tiny.build_model(),
        args=tiny.build_args(tmp_path, **options),
        train_dataset=data if data is not None else tiny.Images(12),
    )
    trainer.train()
    return trainer


def test_a_training_log_tells_of_both_passes(tiny, tmp_path):
    trainer = train(tiny, tmp_path, gradient_accumulation_steps=3, max_steps=1)
    row = trainer.state.log_history[0]
    assert row["degenerate_share"] == 0.0
    assert row["images_per_second"] > 0
    batches = list(trainer.get_train_dataloader())
    model = tiny.build_model().train()
    losses, means = [], []
    for batch in batches:
        with torch.no_grad():
            first = model(batch["pixel_values"], labels=batch["labels"], phase="task")
            losses.append(first.loss.item())
            map_ = model.map_head(first.tap_values, (64, 64)).interpretation_map
            means.append(map_.mean().item())
    assert row["loss"] == pytest.approx(sum(losses) / 3, rel=1e-5)
    assert row["map_mean"] == pytest.approx(sum(means) / 3, rel=1e-5)


def test_averages_cover_the_steps_since_the_last_log(tiny, tmp_path):
    each = train(tiny, tmp_path / "each", max_steps=4, logging_steps=1).state.log_history
    pairs = train(tiny, tmp_path / "pairs", max_steps=4, logging_steps=2).state.log_history
    for name in ("loss", "interpretation_loss", "map_mean", "degenerate_share"):
        for pair in (0, 1):
            expected = (each[2 * pair][name] + each[2 * pair + 1][name]) / 2
            assert pairs[pair][name] == pytest.approx(expected, rel=1e-5), name


def test_degenerate_maps_are_counted(tiny, tmp_path):
    class SomeBroken(tiny.Images):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return {**sample, "pixel_values": sample["pixel_values"] * float("nan")} if index < 3 else sample

    model = tiny.build_model("test_nfnet")  # without batch norm a broken image breaks no other
    row = train(tiny, tmp_path, model, SomeBroken(12), per_device_train_batch_size=12, max_steps=1)
    assert row.state.log_history[0]["degenerate_share"] == pytest.approx(3 / 12)


def test_a_broken_second_pass_is_named_and_leaves_the_weights_alone(tiny, tmp_path, caplog):
    model = tiny.build_model()
    with torch.no_grad():
        model.map_head.weight_network.head.bias[0] = float("nan")
    before = {name: p.clone() for name, p in model.map_head.named_parameters()}
    with caplog.at_level(logging.WARNING, logger="antehoc_hf"):
        trainer = train(tiny, tmp_path, model, max_steps=2)
    assert trainer.state.log_history[0]["degenerate_share"] == 1.0
    for name, parameter in model.map_head.named_parameters():
        assert torch.equal(parameter.nan_to_num(7.0), before[name].nan_to_num(7.0)), name
    assert all(torch.isfinite(parameter).all() for parameter in model.backbone.parameters())
    messages = [record.getMessage() for record in caplog.records]
    assert any(message.startswith("Step 1: ") and "not finite" in message for message in messages)


def test_a_broken_task_loss_is_named(tiny, tmp_path, caplog):
    class Broken(tiny.Images):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return {**sample, "pixel_values": sample["pixel_values"] * float("nan")}

    with caplog.at_level(logging.WARNING, logger="antehoc_hf"):
        train(tiny, tmp_path, data=Broken(12), max_steps=2, logging_steps=2)
    messages = [record.getMessage() for record in caplog.records]
    assert [m for m in messages if "the task's loss" in m] == [
        "Step 1: the task's loss is not finite (NaN or infinite)."
    ]


def test_an_evaluation_tells_of_accuracy_and_maps(tiny, tmp_path):
    seen = []

    def accuracy(prediction):
        seen.append(prediction.predictions.shape)
        return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}

    data = tiny.Images(11)
    model = tiny.build_model()
    trainer = AnteHocTrainer(
        model=model,
        args=tiny.build_args(tmp_path, per_device_eval_batch_size=4),
        eval_dataset=data,
        compute_metrics=accuracy,
    )
    metrics = trainer.evaluate()
    with torch.no_grad():
        outputs = model.eval()(torch.stack([data[index]["pixel_values"] for index in range(11)]))
    right = outputs.logits.argmax(-1) == torch.tensor([index % 4 for index in range(11)])
    assert seen == [(11, 4)]
    assert metrics["eval_accuracy"] == pytest.approx(right.float().mean().item())
    assert metrics["eval_map_mean"] == pytest.approx(outputs.interpretation_map.mean().item(), rel=1e-5)
    assert metrics["eval_degenerate_share"] == 0.0
    assert trainer.state.log_history[-1]["eval_map_mean"] == metrics["eval_map_mean"]


def test_prediction_without_labels(tiny, tmp_path):
    unlabelled = [{"pixel_values": tiny.Images()[index]["pixel_values"]} for index in range(5)]
    trainer = AnteHocTrainer(model=tiny.build_model(), args=tiny.build_args(tmp_path))
    output = trainer.predict(unlabelled)
    assert output.predictions.shape == (5, 4)
    assert 0 < output.metrics["test_map_mean"] < 1


def test_best_model_is_found_again(tiny, tmp_path):
    trainer = AnteHocTrainer(
        model=tiny.build_model(),
        args=tiny.build_args(
            tmp_path,
            eval_strategy="steps",
            eval_steps=1,
            save_strategy="steps",
            save_steps=1,
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model="eval_map_mean",
            greater_is_better=True,
        ),
        train_dataset=tiny.Images(12),
        eval_dataset=tiny.Images(8),
    )
    trainer.train()
    scores = {row["step"]: row["eval_map_mean"] for row in trainer.state.log_history if "eval_map_mean" in row}
    best = max(scores, key=scores.get)
    assert trainer.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{best}")
    assert trainer.evaluate()["eval_map_mean"] == pytest.approx(scores[best], rel=1e-6)


def test_the_command_line_reports_in_words(tiny, tmp_path, capsys):
    data, parts = tiny.Images(8), {"eval_dataset": tiny.Images(4)}
    trainer = tiny.build_trainer(tiny.build_model(), tmp_path, data, parts, max_steps=2)
    calm(trainer)
    trainer.train()
    trainer.evaluate()
    said = capsys.readouterr().out.splitlines()
    reported = r"loss [\d.]+, map's loss [\d.e-]+, map's mean [\d.]+, images a second [\d.]+"
    assert re.fullmatch(f"step 1 of 2: {reported}", said[0])
    assert re.fullmatch(r"step 2 of 2, held-out images: loss [\d.]+, .*map's mean [\d.]+.*", said[-1])
    assert len(said) == 3
