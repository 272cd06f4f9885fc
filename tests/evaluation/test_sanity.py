"""Randomised networks: what changes, what stays, and what the similarity of maps says about a method."""

import pytest
import timm
import torch
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification

from antehoc_hf import AnteHocForImageClassification
from antehoc_hf.evaluation.controls import sobel_map
from antehoc_hf.evaluation.sanity import (
    cascade,
    randomisation_similarity,
    randomisation_steps,
    randomised,
    target_similarity,
)
from antehoc_hf.explainers import load_explainer


@pytest.fixture(scope="module")
def bare():
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=10).eval()
    for module in network.modules():  # as after training: no normalisation is the identity
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)
    return network


@pytest.fixture(scope="module")
def ours():
    torch.manual_seed(0)
    return AnteHocForImageClassification.from_backbone(
        "test_resnet", num_labels=10, image_size=64, map_head="energy"
    ).eval()


def grad_cam(model):
    return load_explainer("grad-cam", model)


def images(batch=3):
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_steps_go_from_the_head_to_the_input(bare, ours):
    names = [name for name, _ in randomisation_steps(bare)]
    assert names == ["head", "layer4", "layer3", "layer2", "layer1", "conv1"]
    assert [name for name, _ in randomisation_steps(ours)] == names
    assert dict(randomisation_steps(bare))["head"] == ("fc.weight", "fc.bias")
    assert dict(randomisation_steps(ours))["head"] == ("backbone.fc.weight", "backbone.fc.bias")
    everything = [parameter for _, group in randomisation_steps(bare) for parameter in group]
    assert sorted(everything) == sorted(name for name, _ in bare.named_parameters())


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet", "densenet121", "vgg11"])
def test_steps_of_other_architectures(name):
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=10)
    steps = randomisation_steps(network)
    assert steps[0][0] == "head"
    assert len(steps[0][1]) == 2
    assert len({name for name, _ in steps}) == len(steps)
    assert sum(len(group) for _, group in steps) == len(list(network.named_parameters()))


def test_networks_not_of_timm_go_by_their_children():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
    assert [name for name, _ in randomisation_steps(network)] == ["3", "0"]
    sizes = {"embedding_size": 8, "hidden_sizes": [32, 32, 32], "depths": [1, 1, 1], "layer_type": "basic"}
    stages = [f"resnet.encoder.stages.{stage}" for stage in (2, 1, 0)]
    steps = randomisation_steps(ResNetForImageClassification(ResNetConfig(**sizes)))
    assert [name for name, _ in steps] == ["classifier", *stages, "resnet.embedder"]


def test_a_copy_is_randomised_and_the_model_is_not(ours):
    before = state(ours)
    copy = randomised(ours, ["backbone.fc", "backbone.layer2.0.bn1"], seed=3)
    assert changed(before, ours.state_dict()) == set()
    assert changed(before, copy.state_dict()) <= {
        name for name in before if name.startswith(("backbone.fc.", "backbone.layer2.0.bn1."))
    }
    weight = copy.backbone.fc.weight
    assert not torch.equal(weight, ours.backbone.fc.weight)
    assert torch.equal(weight.flatten().sort().values, ours.backbone.fc.weight.flatten().sort().values)
    assert (
        changed(copy.state_dict(), randomised(ours, ["backbone.fc", "backbone.layer2.0.bn1"], 3).state_dict()) == set()
    )
    assert "backbone.fc.weight" in changed(copy.state_dict(), randomised(ours, ["backbone.fc"], 4).state_dict())


def test_a_normalisation_s_channels_stay_together(bare):
    norm, shuffled = bare.layer2[0].bn1, randomised(bare, ["layer2.0.bn1"]).layer2[0].bn1
    order = [int((norm.weight == value).nonzero()) for value in shuffled.weight]
    assert order != sorted(order)
    for name in ("bias", "running_mean", "running_var"):
        assert torch.equal(getattr(shuffled, name), getattr(norm, name)[order])


def test_the_cascade_goes_on_from_step_to_step(bare):
    before, parameters, grown = state(bare), dict(bare.named_parameters()), set()
    for name, network in cascade(bare):
        now = changed(before, network.state_dict())
        assert grown < now, name
        grown = now
    assert {name for name, value in parameters.items() if value.unique().numel() > 1} <= grown
    assert changed(before, bare.state_dict()) == set()


def test_a_method_that_reads_the_network_notices_and_an_edge_detector_does_not(bare):
    similarity = randomisation_similarity(bare, grad_cam, images())
    assert list(similarity) == [name for name, _ in randomisation_steps(bare)]
    assert all(values.shape == (3,) for values in similarity.values())
    assert similarity["conv1"].abs().mean() < 0.6
    assert similarity["head"].mean() < 0.9
    edges = randomisation_similarity(bare, lambda model: lambda pixels, target: sobel_map(pixels), images())
    assert all(values.tolist() == pytest.approx([1, 1, 1]) for values in edges.values())


def test_the_class_stays_that_of_the_trained_network(bare):
    targets = []

    def remembering(model):
        return lambda pixels, target: targets.append(target.tolist()) or sobel_map(pixels)

    randomisation_similarity(bare, remembering, images())
    assert len(targets) == 7
    assert targets == [bare(images()).argmax(dim=1).tolist()] * 7


def test_our_map_depends_on_the_stages_and_on_no_class(ours):
    similarity = randomisation_similarity(ours, lambda model: load_explainer("antehoc", model), images())
    assert similarity["head"].tolist() == pytest.approx([1, 1, 1])
    assert similarity["conv1"].mean() < 0.95
    first, second = torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5])
    explain = load_explainer("antehoc", ours)
    assert target_similarity(explain, images(), first, second).tolist() == pytest.approx([1, 1, 1])
    assert target_similarity(load_explainer("grad-cam", ours), images(), first, second).mean() < 0.9


def test_mistakes_end_in_one_sentence(bare):
    with pytest.raises(ValueError, match="no parameter or module 'layer9'"):
        randomised(bare, ["layer9"])
    with pytest.raises(ValueError, match="same class for 1 of 2 images"):
        target_similarity(grad_cam(bare), images(2), torch.tensor([1, 2]), torch.tensor([1, 3]))
    with pytest.raises(ValueError, match="pass the target"):
        randomisation_similarity(nn.Conv2d(3, 4, 3), grad_cam, images())
