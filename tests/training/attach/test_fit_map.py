"""Maps fitted to finished classifiers in closed form."""

import pytest
import torch
from timm.models import register_model
from torch import nn

from antehoc_hf.modeling import AnteHocForImageClassification
from antehoc_hf.training.attach import FitOptions, fit_map
from antehoc_hf.training.attach.equations import NormalEquations

QUICK = {"progress": False, "batch_size": 64, "channels_last": False, "precision": "float32"}


class LinearNetwork(nn.Module):
    """Patches of 8 pixels, their mean, a linear head: nothing in it but sums."""

    def __init__(self, num_classes=3, **kwargs):
        super().__init__()
        self.pretrained_cfg = {"classifier": "fc", "first_conv": "patches"}
        self.num_features, self.num_classes = 6, num_classes
        self.patches = nn.Conv2d(3, 6, kernel_size=8, stride=8, bias=False)
        self.fc = nn.Linear(6, num_classes)

    def get_classifier(self):
        return self.fc

    def forward_features(self, pixel_values):
        return self.patches(pixel_values)

    def forward_head(self, features, pre_logits=False):
        pooled = features.mean(dim=(2, 3))
        return pooled if pre_logits else self.fc(pooled)

    def forward(self, pixel_values):
        return self.forward_head(self.forward_features(pixel_values))


@register_model
def antehoc_linear_network(pretrained=False, **kwargs):
    return LinearNetwork(num_classes=kwargs.get("num_classes", 3))


def classifier(backbone="test_resnet", **options):
    torch.manual_seed(0)
    options = {"num_labels": 5, "image_size": 64, "map_head": {"kind": "contributions", "closed_form": True}} | options
    model = AnteHocForImageClassification.from_backbone(backbone, **options).eval()
    with torch.no_grad():  # a head that is sure of something
        model.backbone.get_classifier().weight.normal_(std=2.0)
    return model


def pictures(count, seed=0):
    """A bright patch somewhere on faint noise, so that there is something to find."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.1 * torch.randn(count, 3, 64, 64, generator=generator)
    for image in images:
        row, column = torch.randint(0, 40, (2,), generator=generator).tolist()
        image[:, row : row + 24, column : column + 24] += torch.randn(3, 1, 1, generator=generator) * 2
    return list(images)


@pytest.mark.parametrize("against", ["complement", "drawn"])
def test_the_contributions_of_a_linear_network_are_recovered(against):
    """Without nonlinearity the Shapley value of a patch is what it adds: w·f / 64 to a logit, a quarter to p."""
    model = classifier(
        "antehoc_linear_network",
        num_labels=3,
        taps=["patches"],
        problem_type="multi_label_classification",
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
    )
    with torch.no_grad():
        model.backbone.fc.weight.mul_(0.02)
        model.backbone.fc.bias.zero_()
    report = fit_map(model, pictures(40), FitOptions(background="black", pairs=4, against=against, **QUICK))
    assert report.explained["fitted map"] > 0.999
    image = pictures(1, seed=9)[0][None]
    contributions = model(image, output_attention_maps=True).contributions
    by_hand = torch.einsum("kc,bchw->bkhw", model.backbone.fc.weight, model.backbone.patches(image)) / 64 / 4
    assert torch.allclose(contributions, by_hand, rtol=0.05, atol=0.02 * by_hand.abs().max().item())


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "test_vit"])
def test_the_map_is_never_worse_than_its_start(backbone):
    options = {} if backbone != "test_vit" else {"backbone_kwargs": {"global_pool": "avg"}}
    report = fit_map(classifier(backbone, **options), pictures(48), FitOptions(pairs=3, **QUICK))
    for explained in (report.explained_all, report.explained):
        assert explained["no map"] == 0
    assert report.explained_all["fitted map"] >= report.explained_all["class evidence"]
    assert (report.images, report.held_out) == (42, 6)


def test_of_pure_chance_the_start_is_kept():
    """Responses that say nothing of the gains: each regression does worse on new images than the single number."""
    equations, held_out = NormalEquations(60), NormalEquations(60)
    generator = torch.Generator().manual_seed(0)
    for sums, count in ((equations, 70), (held_out, 2000)):
        rows = torch.randn(count, 60, generator=generator)
        sums.add(rows, rows[:, 1] + 3 * torch.randn(count, generator=generator))
    start = torch.zeros(60, dtype=torch.float64)
    start[1] = 1
    assert held_out.error(equations.along(start)) < held_out.error(equations.solve(1e-3))


def test_normal_equations_are_those_of_all_rows_at_once():
    generator = torch.Generator().manual_seed(0)
    rows, values = torch.randn(50, 4, generator=generator).double(), torch.randn(50, generator=generator).double()
    sums = NormalEquations(4)
    for part in range(0, 50, 20):
        sums.add(rows[part : part + 20], values[part : part + 20])
    expected = torch.linalg.lstsq(rows, values[:, None]).solution[:, 0]
    assert torch.allclose(sums.solve(0.0), expected)
    assert sums.error(expected) == pytest.approx(float((values - rows @ expected).square().sum()))
    assert sums.explained(torch.zeros(4).double()) == 0


def test_what_columns_explain_is_set_aside():
    """Frisch and Waugh: the rest of the coefficients are those of all columns together."""
    generator = torch.Generator().manual_seed(0)
    rows, values = torch.randn(50, 5, generator=generator).double(), torch.randn(50, generator=generator).double()
    rows[:, :3] += rows[:, 3:4]
    rows = torch.cat([rows, torch.zeros(50, 1).double()], dim=1)  # of coalitions of one size
    sums = NormalEquations(6)
    sums.add(rows, values)
    together = torch.linalg.lstsq(rows[:, :5], values[:, None]).solution[:, 0]
    assert torch.allclose(sums.without(3).solve(0.0), together[:3])
    known = torch.linalg.lstsq(rows[:, 3:5], values[:, None]).solution[:, 0]
    left = float((values - rows[:, 3:5] @ known).square().sum())
    assert sums.without(3).error(torch.zeros(3).double()) == pytest.approx(left)
    assert sums.without(3).error(together[:3]) == pytest.approx(sums.error(torch.cat([together, torch.zeros(1)])))


def test_nothing_but_the_map_changes():
    model = classifier().train()
    model.backbone.conv1.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    fit_map(model, pictures(24), FitOptions(pairs=2, progress=False))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("map_head.") for name in changed)
    assert modes == {name: module.training for name, module in model.named_modules()}
    assert all(parameter.grad is None for parameter in model.parameters())


def test_batches_do_not_matter_and_a_seed_is_repeated():
    fitted = []
    for batch_size, seed in ((7, 0), (64, 0), (64, 1)):
        model = classifier()
        fit_map(model, pictures(24), FitOptions(**QUICK | {"batch_size": batch_size, "seed": seed, "pairs": 2}))
        fitted.append(model(torch.stack(pictures(3, seed=5))).interpretation_map)
    assert torch.allclose(fitted[0], fitted[1], atol=1e-4)
    assert not torch.allclose(fitted[1], fitted[2], atol=1e-3)


def test_layouts_agree():
    model, shares = classifier("test_efficientnet"), []
    for channels_last in (False, True):
        options = FitOptions(pairs=2, progress=False, precision="float32", channels_last=channels_last)
        report = fit_map(model, pictures(24), options)
        assert (report.setting.channels_last, report.setting.dtype) == (channels_last, "float32")
        shares.append(report.explained["class evidence"])
    assert shares[0] == pytest.approx(shares[1], abs=1e-4)


def test_any_source_of_images_will_do():
    rows = [{"pixel_values": image, "label": 0} for image in pictures(24)]
    options, maps = FitOptions(pairs=2, **QUICK), []
    for images in (pictures(24), rows, iter(pictures(24))):
        model = classifier()
        assert fit_map(model, images, options).held_out == 3
        maps.append(model.map_head.coefficients)
    assert torch.equal(maps[0], maps[1])
    assert torch.equal(maps[0], maps[2])


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ([], "at least 20 images"),
        (pictures(3), "but there are 3"),
        ([torch.zeros(1, 64, 64)] * 30, "normalised tensor"),
        (["photo.jpg"] * 30, "not str"),
        ([*pictures(31), torch.zeros(3, 32, 32)], "one size"),
    ],
)
def test_unsuitable_images_are_refused(images, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit_map(classifier(), images, FitOptions(pairs=1, **QUICK))


def test_other_maps_and_options_are_refused():
    with pytest.raises(ValueError, match="closed_form"):
        fit_map(classifier(map_head="contributions"), pictures(24))
    with pytest.raises(ValueError, match="not linear"):
        classifier("test_convnext", num_attention_maps=2, taps=["stages.1", "stages.2"])
    with pytest.raises(ValueError, match="pairs=0"):
        FitOptions(pairs=0)
    with pytest.raises(ValueError, match="'ranked' is not one of"):
        FitOptions(sampling="ranked")
    broken = classifier()
    torch.nn.init.constant_(broken.backbone.fc.bias, torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        fit_map(broken, pictures(24), FitOptions(pairs=1, **QUICK))


def test_a_network_that_sees_nothing_keeps_the_start():
    model = classifier()
    torch.nn.init.zeros_(model.backbone.fc.weight)
    start = model.map_head.coefficients.count_nonzero()
    report = fit_map(model, pictures(24), FitOptions(pairs=1, **QUICK))
    assert report.penalty is None
    assert model.map_head.coefficients.count_nonzero() == start == 1
