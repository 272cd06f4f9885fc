"""An objective of one's own, written outside the package, teaches a map."""

from dataclasses import dataclass

import pytest
import torch

from antehoc_hf.training import AnteHocTrainer
from antehoc_hf.training.objectives import OBJECTIVES, CardSentences, Objective, SecondPassResult

# -- the recipe: 33 lines ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CenterOptions:
    """How strongly the map is drawn to the centre."""

    weight: float = 1.0


class CenterObjective(Objective):
    """Teaches an energy map to be a bright disc in the middle of the image."""

    name = "center"
    options_class = CenterOptions

    def __init__(self, **options):
        self.options = CenterOptions(**options)

    def second_pass(self, step, first):
        with step.model.interpretation_phase():
            outputs = step.call(**first.inputs, tap_values=first.tap_values, phase="interpretation")
            maps = outputs.interpretation_map
            across = torch.linspace(-1, 1, maps.shape[-1], device=maps.device)
            disc = (across[:, None] ** 2 + across**2 < 0.25).float()
            loss = self.options.weight * (maps - disc).square().mean()
            step.backward(loss)
        return SecondPassResult(loss.detach(), maps.detach().mean(dim=(1, 2, 3)), outputs.degenerate)

    def describe(self):
        return CardSentences(second_pass="image ⊙ map", learned="so that the map is a disc in the middle")


# -- what it does -----------------------------------------------------------------------------------------------


def train(tiny, folder, objective, **options):
    model, options = tiny.build_model(), {"interpretation_learning_rate": 0.02, "optim": "adamw_torch", **options}
    args = tiny.build_args(folder, max_steps=30, learning_rate=1e-3, **options)
    trainer = AnteHocTrainer(model, args, objective=objective, train_dataset=tiny.Images(24))
    trainer.train()
    return trainer


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "center", CenterObjective)


def test_the_map_learns_it_and_the_backbone_is_left_alone(tiny, tmp_path, registered):
    trainer = train(tiny, tmp_path / "own", "center")
    losses = [row["interpretation_loss"] for row in trainer.state.log_history if "interpretation_loss" in row]
    assert losses[-1] < 0.9 * losses[0]
    papers = train(tiny, tmp_path / "energy", "energy")
    for (name, value), other in zip(
        trainer.model.backbone.state_dict().items(), papers.model.backbone.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name


def test_its_options_are_recorded_and_on_the_card(tiny, tmp_path):
    trainer = train(tiny, tmp_path, CenterObjective(weight=2.0), save_strategy="steps", save_steps=30)
    trainer.save_model()
    trainer.create_model_card()
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "so that the map is a disc in the middle" in card
    assert "| weight | `2` |" in card
    with pytest.raises(ValueError, match=r"objective\.weight: 2\.0 there, 3\.0 here"):
        train(tiny, tmp_path, CenterObjective(weight=3.0))
