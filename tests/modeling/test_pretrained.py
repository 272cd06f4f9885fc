"""timm's weights are taken as they are, and timm's own initialisation is left alone."""

from pathlib import Path

import pytest
import timm
import torch

from antehoc_hf.modeling import AnteHocForImageClassification, AnteHocModel


@pytest.fixture
def trained():
    """A timm network that does not look freshly built: other weights, gains and running statistics."""

    def _trained(backbone="test_resnet", **options):
        network = timm.create_model(backbone, **options)
        generator = torch.Generator().manual_seed(3)
        state = network.state_dict()
        for name, value in state.items():
            if value.is_floating_point():
                state[name] = torch.rand(value.shape, generator=generator) + 0.1
            else:
                state[name] = value + 17
        return state

    return _trained


def from_file(path, backbone="test_resnet", kind=AnteHocForImageClassification, **config):
    return kind.from_backbone(backbone, pretrained=path, image_size=64, **config)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "test_convnext", "test_nfnet"])
def test_weights_and_running_statistics_are_kept_to_the_bit(trained, tmp_path, backbone):
    state = trained(backbone)
    torch.save(state, tmp_path / "weights.pth")
    model = from_file(str(tmp_path / "weights.pth"), backbone, num_labels=1000)
    own = model.backbone.state_dict()
    assert own.keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(own[name], value), name


def test_a_head_of_another_size_is_fresh(trained, tmp_path):
    state = trained()
    torch.save(state, tmp_path / "weights.pth")
    model = from_file(str(tmp_path / "weights.pth"), num_labels=4)
    torch.manual_seed(0)
    for name, value in model.backbone.state_dict().items():
        if name.startswith("fc."):
            assert value.shape[0] == 4
            assert value.abs().max() < 0.5
            assert value.isfinite().all()
        else:
            assert torch.equal(value, state[name]), name


def test_weights_of_another_network_are_refused(trained, tmp_path):
    """timm loads none of those whose names it does not know, and its network stays random."""
    weights = {f"backbone.{name}": value for name, value in trained().items()}
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"of 'test_resnet', such as conv1.0.weight, are not in the file. Name the"):
        from_file(str(tmp_path / "weights.pth"), num_labels=4)


@pytest.mark.parametrize("count", [1, 20])
def test_weights_that_are_missing_are_said(trained, tmp_path, count):
    state = trained()
    for name in [name for name in state if name.startswith("layer")][:count]:
        del state[name]
    torch.save(state, tmp_path / "weights.pth")
    said = rf"{17 if count > 1 else 1} of \d+ tensors of 'test_resnet', such as layer1.0.conv1.weight, are not in the"
    with pytest.raises(ValueError, match=said) if count > 1 else pytest.warns(UserWarning, match=said):
        from_file(str(tmp_path / "weights.pth"), num_labels=4)


def test_a_fine_tuned_classifier_is_kept(trained, tmp_path):
    """A file with as many classes as the model, whatever the number of the data set timm knows the network by."""
    state = trained(num_classes=7)
    torch.save(state, tmp_path / "weights.pth")
    own = from_file(str(tmp_path / "weights.pth"), num_labels=7).backbone.state_dict()
    assert torch.equal(own["fc.weight"], state["fc.weight"])
    assert torch.equal(own["fc.bias"], state["fc.bias"])


@pytest.mark.parametrize("kind", [str, Path])
def test_number_of_classes_of_the_file_where_none_is_given(trained, tmp_path, kind):
    state = trained(num_classes=7)
    torch.save(state, tmp_path / "weights.pth")
    model = from_file(kind(tmp_path / "weights.pth"))
    assert model.num_labels == 7
    assert torch.equal(model.backbone.fc.weight, state["fc.weight"])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_kinds_of_file(trained, tmp_path, suffix):
    from safetensors.torch import save_file

    state, path = trained(num_classes=4), tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    model = from_file(path, num_labels=4)
    assert torch.equal(model.backbone.fc.weight, state["fc.weight"])


def test_a_file_is_read_once(trained, tmp_path, monkeypatch):
    torch.save(trained(num_classes=4), tmp_path / "weights.pth")
    read, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: read.append(args) or load(*args, **options))
    for options in ({}, {"num_labels": 4}, {"num_labels": 3}):
        read.clear()
        from_file(tmp_path / "weights.pth", **options)
        assert len(read) == 1


def test_bare_model_from_a_file(trained, tmp_path):
    state = trained()
    torch.save(state, tmp_path / "weights.pth")
    own = from_file(str(tmp_path / "weights.pth"), kind=AnteHocModel, map_head="energy").backbone.state_dict()
    assert not [name for name in own if name.startswith("fc.")]
    for name, value in own.items():
        assert torch.equal(value, state[name]), name


def test_position_embedding_is_fitted_to_the_image_size(trained, tmp_path):
    torch.save(trained("test_vit"), tmp_path / "weights.pth")
    model = from_file(str(tmp_path / "weights.pth"), "test_vit", num_labels=4)
    assert model.backbone.pos_embed.shape == (1, 1 + 4 * 4, 64)
    assert model.backbone.pos_embed.min() > 0.05


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_nfnet", "test_mambaout"])
def test_initialisation_is_that_of_timm(backbone):
    """The same weights as timm gives under the same seed, and the same random numbers afterwards."""
    torch.manual_seed(7)
    plain = timm.create_model(backbone, num_classes=4)
    following = torch.rand(3)
    torch.manual_seed(7)
    model = AnteHocForImageClassification.from_backbone(backbone, num_labels=4, image_size=64)
    assert torch.equal(torch.rand(3), following)
    for name, value in plain.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value), name


def test_pretrained_weights_consume_no_random_numbers(trained, tmp_path):
    torch.save(trained(), tmp_path / "weights.pth")
    results = []
    for source in (False, str(tmp_path / "weights.pth")):
        torch.manual_seed(7)
        from_file(source, num_labels=1000)
        results.append(torch.rand(3))
    assert torch.equal(*results)


def test_pretrained_without_a_network():
    with pytest.raises(
        OSError, match=r"Could not load the pretrained weights of 'test_resnet'.*pretrained="
    ) as caught:
        from_file(True)
    assert "\n" not in str(caught.value)


def test_file_that_is_not_there():
    with pytest.raises(OSError, match=r"missing\.pth"):
        from_file("missing.pth", num_labels=4)


def test_file_that_holds_no_weights(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_text("nothing")
    with pytest.raises(OSError, match=r"weights\.pth"):
        from_file(str(path), num_labels=4)


def test_weights_of_another_network(trained, tmp_path):
    torch.save(trained("test_efficientnet"), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="pretrained weights cannot be used") as caught:
        from_file(str(tmp_path / "weights.pth"), num_labels=4)
    assert "\n" not in str(caught.value)


def test_labels_of_the_data_set(trained, tmp_path):
    torch.save(trained("test_resnet.r160_in1k"), tmp_path / "weights.pth")
    model = from_file(str(tmp_path / "weights.pth"), "test_resnet.r160_in1k")
    assert model.num_labels == 1000
    assert "goldfish" in model.config.id2label[1]


def test_no_number_of_classes_is_transformers_default():
    model = AnteHocForImageClassification.from_backbone("test_resnet", image_size=64, num_labels=None)
    assert model.config.id2label == {0: "LABEL_0", 1: "LABEL_1"}
