"""Maps of points and of words: the same game, another worth. The network is left alone, each target has its map."""

import math

import pytest
import torch
from transformers import AutoModel

from antehoc_hf.explainers import load_explainer
from antehoc_hf.modeling.landmark_detection import TOLERANCE, landmark_worth
from antehoc_hf.modeling.word_maps import word_worth
from antehoc_hf.training.trainer import AnteHocTrainer

KIND = {"map_head": "contributions"}
DROP = {"backbone_kwargs": {"drop_path_rate": 0.2}}
PARTS = {"landmark_names": ["tip", "left", "right"], "landmark_parts": {"sides": [1, 2]}}
BOS, EOS, PAD = 1, 2, 0


def images(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def awake(model):
    torch.manual_seed(0)
    for parameter in model.map_head.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture(scope="module")
def points(tiny):
    return awake(tiny.build_model(points=3, **PARTS, **KIND))


@pytest.fixture(scope="module")
def writer(tiny_captions):
    model = tiny_captions.build_model(**KIND)
    torch.manual_seed(5)
    for name, parameter in model.decoder.named_parameters():
        if parameter.ndim > 1:  # words that depend on the image and on each other
            torch.nn.init.normal_(parameter, std=3.0 if "image" in name else 1.0)
    return awake(model)


# -- what a coalition is worth ----------------------------------------------------------------------------------------


def test_a_point_is_worth_less_the_further_it_moves():
    whole = torch.tensor([[0.5, 0.5, 0.2, 0.2]])
    found = whole + torch.tensor([[TOLERANCE, 0.0, 0.0, 0.0]])
    assert landmark_worth(found, whole).tolist() == [[pytest.approx(math.exp(-0.5)), 1.0]]
    assert landmark_worth(whole + 9, whole).tolist() == [[0.0, 0.0]]


def test_a_word_is_worth_its_log_probability():
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, 0.0]]])
    assert word_worth(logits, torch.tensor([[1, -100]])).tolist() == [[pytest.approx(math.log(0.75)), 0.0]]


# -- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2, "coalition_sampling": "ranked"}])
def test_points_are_learned_as_without_such_maps(tiny, tmp_path, options):
    def train(**model):
        data = tiny.Images(22, augment=True, points=3)
        built = tiny.build_model(seed=5, points=3, **DROP, **model)
        own = {name: value for name, value in options.items() if model == KIND or not name.startswith("coalition")}
        trainer = tiny.build_trainer(built, tmp_path / model["map_head"], data, **own)
        trainer.train()
        return trainer

    ours, papers = train(**KIND), train(map_head="energy")
    state = ours.model.backbone.state_dict()
    assert all(torch.equal(state[name], value) for name, value in papers.model.backbone.state_dict().items())
    fresh = tiny.build_model(seed=5, points=3, **DROP, **KIND).map_head.state_dict()
    assert not any(torch.equal(value, fresh[name]) for name, value in ours.model.map_head.state_dict().items())
    assert all(0 <= row["map_mean"] <= 1 for row in ours.state.log_history if "map_mean" in row)


@pytest.mark.parametrize("target", ["reference", "generated"])
def test_words_are_learned_as_without_such_maps(tiny_captions, tmp_path, target):
    def train(kind):
        model = tiny_captions.build_model(seed=5, map_head=kind, caption_target=target, decoder_dropout=0.3, **DROP)
        args = tiny_captions.build_args(tmp_path / kind, gradient_accumulation_steps=2)
        data = tiny_captions.Captions(16)
        trainer = AnteHocTrainer(model=model, args=args, train_dataset=data, data_collator=tiny_captions.COLLATE)
        trainer.train()
        return trainer.model

    ours, papers = train("contributions"), train("energy")
    state = ours.state_dict()
    same = [torch.equal(state[name], value) for name, value in papers.state_dict().items() if "map_head" not in name]
    assert len(same) > 20
    assert all(same)
    fresh = tiny_captions.build_model(seed=5, **DROP, **KIND).map_head.state_dict()
    assert not any(torch.equal(value, fresh[name]) for name, value in ours.map_head.state_dict().items())


# -- points -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_each_point_has_a_map_and_a_part_has_the_sum(points):
    output = points(images(), output_attention_maps=True)
    of_points = output.contributions
    share = 1 - points.map_head.baseline_worth
    assert torch.allclose(of_points.sum(dim=(2, 3)), share.expand(3, -1), atol=1e-4)
    maps = [points.interpretation(images(), target).interpretation_map for target in (0, 1, 2)]
    assert not torch.allclose(maps[0], maps[1], atol=0.05)
    sides = points.interpretation(images(), "sides").interpretation_map
    summed = of_points[:, 1:].sum(dim=1, keepdim=True).clamp(min=0)
    expected = torch.nn.functional.interpolate(summed, size=(64, 64), mode="bilinear")
    assert torch.allclose(sides, expected / expected.amax(dim=(2, 3), keepdim=True), atol=1e-4)
    assert torch.equal(sides, points.interpretation(images(), ["left", 2]).interpretation_map)
    assert torch.equal(maps[0], points.interpretation(images(), "tip").interpretation_map)
    assert torch.equal(maps[0][1], points.interpretation(images(), torch.tensor([1, 0, 2])).interpretation_map[1])
    explain = load_explainer("antehoc", points)
    assert torch.allclose(explain(images(), "sides"), sides, atol=1e-4)
    assert torch.allclose(explain(images()), output.interpretation_map, atol=1e-4)
    assert torch.allclose(points(images()).interpretation_map, output.interpretation_map, atol=1e-4)


@pytest.mark.parametrize("target", ["mouth", 3, -1, [], [0, 7], 1.5, True, {}])
def test_points_that_do_not_exist_are_refused(points, target):
    with pytest.raises(ValueError, match=r"target must be a point, 0…2, or one of sides, tip, left, right …"):
        points.interpretation(images(1), target)


# -- words ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_each_word_has_a_map_and_a_caption_has_the_sum(writer):
    labels = torch.tensor([[5, 6, EOS], [7, EOS, -100], [8, 8, EOS]])
    output = writer(images(), labels=labels, output_attention_maps=True)
    worth = word_worth(output.logits, labels)
    share = torch.where(labels >= 0, worth - writer.map_head.baseline_worth[labels.clamp(min=0)], 0.0)
    assert torch.allclose(output.contributions.sum(dim=(2, 3)), share, atol=1e-3)
    assert output.contributions[1, 2].eq(0).all()
    sequences = torch.tensor([[BOS, 5, 6, EOS], [BOS, 7, EOS, PAD], [BOS, 8, 8, EOS]])
    maps = writer.word_maps(images(), sequences)
    assert maps.shape == (3, 3, 1, 64, 64)
    assert maps[1, 2].eq(0).all()
    assert not torch.allclose(maps[0, 0], maps[0, 1], atol=0.05)
    explain = load_explainer("antehoc", writer)
    assert torch.allclose(explain(images(), (sequences, 1)), maps[:, 1], atol=1e-4)
    assert torch.allclose(explain(images(), sequences), output.interpretation_map, atol=1e-4)


@torch.no_grad()
def test_a_caption_is_explained_in_the_pass_that_writes_it(writer):
    passes = []
    handle = writer.backbone.conv1.register_forward_hook(lambda *args: passes.append(1))
    try:
        said = writer.caption(images(), output_word_maps=True)
    finally:
        handle.remove()
    assert len(passes) == 1
    assert torch.equal(said.sequences, writer.generate(images()))
    assert torch.allclose(said.interpretation_map, writer.interpretation(images()).interpretation_map, atol=1e-5)
    assert torch.equal(said.word_maps, writer.word_maps(images(), said.sequences))
    twice = writer.caption(images(), num_beams=2, num_return_sequences=2)
    assert twice.interpretation_map.shape == (6, 1, 64, 64)


# -- on their way -----------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", ["points", "writer"])
def test_saved_and_loaded(name, tmp_path, request):
    model = request.getfixturevalue(name)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert torch.equal(again(images()).interpretation_map, model(images()).interpretation_map)
    bare = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(
        bare(images()).pooler_output,
        model.backbone.forward_head(model.backbone.forward_features(images()), pre_logits=True),
    )
    if name == "points":
        assert torch.equal(bare(images()).interpretation_map, model(images()).interpretation_map)
        assert torch.equal(
            bare.interpretation(images(), "sides").interpretation_map,
            model.interpretation(images(), "sides").interpretation_map,
        )
    else:
        assert bare(images()).interpretation_map is None
        with pytest.raises(ValueError, match="says no words, which its maps explain: load it with a task's class"):
            bare.interpretation(images())
