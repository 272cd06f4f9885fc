"""The landmark head, the paper's small network, and the way of a point from an image to the network and back."""

import json
import math

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoModelForKeypointDetection

from antehoc_hf import AnteHocForLandmarkDetection, AnteHocImageProcessor
from antehoc_hf.export import export_onnx
from antehoc_hf.modeling import AnteHocLandmarkConfig
from antehoc_hf.modeling.landmark_cnn import NAME as LANDMARK_CNN
from antehoc_hf.modeling.landmark_detection import SMOOTH_L1_BETA, AnteHocLandmarkOutput, landmark_loss

NAN = math.nan


def points_model(build, backbone="test_resnet", **config):
    config = {"num_landmarks": 5, "map_head": "energy", **config}
    return build(backbone, kind=AnteHocForLandmarkDetection, num_labels=2, **config)


# -- the head ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_vit4", LANDMARK_CNN])
def test_any_backbone_finds_points(build, noise, backbone):
    size = {"test_vit4": 160, LANDMARK_CNN: 128}.get(backbone, 64)
    model = points_model(build, backbone, image_size=size)
    output = model(noise(1, size))
    assert output.landmarks.shape == (1, 5, 2)
    assert output.interpretation_map.shape == (1, 1, size, size)
    assert torch.equal(output.landmarks.flatten(1), model.backbone(noise(1, size)))
    assert torch.equal(model.prediction(output), output.landmarks.flatten(1))


def test_non_square_and_half_precision(build, noise):
    model = points_model(build, image_size=[64, 96])
    reference = model(noise(2, 64, 96)).landmarks
    for dtype in (torch.bfloat16, torch.float16):
        model = points_model(build, image_size=[64, 96]).to(dtype)
        output = model(noise(2, 64, 96).to(dtype), labels=torch.rand(2, 5, 2))
        assert output.landmarks.dtype == dtype
        assert output.loss.dtype == torch.float32
        assert torch.allclose(output.landmarks.float(), reference, atol=0.05)


def test_loss_is_the_mean_squared_error_of_known_points(build, noise):
    model, labels = points_model(build), torch.rand(2, 5, 2)
    output = model(noise(2, 64), labels=labels)
    assert torch.allclose(output.loss, F.mse_loss(output.landmarks, labels))
    labels[0, 1:] = NAN
    labels[1, 2, 0] = NAN  # half a point is no point
    squared = (output.landmarks - labels).square()
    by_hand = (squared[0, 0].mean() + squared[1, [0, 1, 3, 4]].mean()) / 2
    assert torch.allclose(landmark_loss(output.landmarks, labels), by_hand)


def test_missing_points_have_no_gradient_and_all_missing_no_loss():
    found = torch.rand(2, 3, 2, requires_grad=True)
    labels = torch.rand(2, 3, 2)
    labels[0] = NAN
    labels[1, 0] = NAN
    loss = landmark_loss(found, labels)
    loss.backward()
    assert torch.isfinite(found.grad).all()
    assert (found.grad[0] == 0).all()
    assert (found.grad[1, 0] == 0).all()
    assert (found.grad[1, 1:] != 0).all()
    assert landmark_loss(found, torch.full_like(labels, NAN)) == 0


def test_smooth_l1_is_straight_beyond_a_hundredth():
    labels = torch.zeros(1, 1, 2)
    small, large = torch.full((1, 1, 2), 0.004), torch.full((1, 1, 2), 0.3)
    assert landmark_loss(small, labels, "smooth_l1").item() == pytest.approx(0.5 * 0.004**2 / SMOOTH_L1_BETA)
    assert landmark_loss(large, labels, "smooth_l1").item() == pytest.approx(0.3 - 0.5 * SMOOTH_L1_BETA)


@pytest.mark.parametrize("shape", [(2, 4, 2), (2, 2, 5), (2, 10), (1, 5, 2)])
def test_labels_of_another_shape(build, noise, shape):
    with pytest.raises(ValueError, match=r"labels must be \(batch, points, 2\)"):
        points_model(build)(noise(2, 64), labels=torch.zeros(shape))


def test_the_two_passes(build, noise):
    model = points_model(build, awake=True).train()
    labels = torch.rand(2, 5, 2)
    first = model(noise(2, 64), labels=labels, phase="task", normalizer=torch.ones(2, 2, 2))
    assert first.interpretation_map is None
    second = model(noise(2, 64), tap_values=first.tap_values, phase="interpretation")
    energy = model.energy_map(noise(2, 64), second.interpretation_map)
    assert torch.allclose(second.landmarks.flatten(1), model.backbone(energy), atol=1e-6)
    assert model.prediction_kind == "vector"
    assert as_keys(first)[:2] == ["loss", "landmarks"]


def as_keys(output):
    return list(output.keys())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_landmarks": 0}, "at least 1"),
        ({"num_landmarks": True}, "at least 1"),
        ({"num_landmarks": 2, "landmark_names": ["a"]}, "2 different names"),
        ({"num_landmarks": 2, "landmark_names": ["a", "a"]}, "2 different names"),
        ({"num_landmarks": 3, "landmark_flip": [1, 0, 3]}, "0…2 once"),
        ({"num_landmarks": 3, "landmark_flip": [1, 2, 0]}, "in pairs"),
        ({"num_landmarks": 3, "landmark_parts": {"nose": [0, 3]}}, r"landmark_parts\['nose'\]"),
        ({"landmark_names": ["a"]}, "num_landmarks is not given"),
        ({"num_landmarks": 3, "landmark_loss": "l2"}, "landmark_loss"),
    ],
)
def test_options_that_make_no_sense(options, said):
    with pytest.raises(ValueError, match=said):
        AnteHocLandmarkConfig(backbone="test_resnet", **options)


def test_how_many_points_must_be_said():
    with pytest.raises(ValueError, match="num_landmarks is missing"):
        AnteHocForLandmarkDetection.from_backbone("test_resnet", image_size=64)


# -- the paper's network ----------------------------------------------------------------------------------------------


def test_the_papers_network_has_its_shapes_and_taps():
    """Sides after each convolution (and maximum) as published: 126/63, 61, 59/29, 27, 25/12, 10, 8/7, 5."""
    network = timm.create_model(LANDMARK_CNN, num_classes=136)
    sides, pixels = [], torch.rand(2, 3, 128, 128)
    for block in network.features:
        pixels = block(pixels)
        sides.append(pixels.shape[-1])
    assert sides == [63, 61, 29, 27, 12, 10, 7, 5]
    assert (network.hidden.in_features, network.hidden.out_features) == (6400, 1024)
    config = AnteHocForLandmarkDetection.from_backbone(LANDMARK_CNN, num_landmarks=68).config
    assert [point["module"] for point in config.tap_points] == [f"features.{index}.act" for index in range(8)]
    assert config.image_size == [128, 128]
    assert config.image_mean == [0.0, 0.0, 0.0]
    assert config.fixed_image_size


def test_the_papers_network_in_other_sizes(noise):
    model = AnteHocForLandmarkDetection.from_backbone(
        LANDMARK_CNN, num_landmarks=3, image_size=[112, 144], backbone_kwargs={"width": 0.25}
    )
    assert model(noise(2, 112, 144)).landmarks.shape == (2, 3, 2)
    with pytest.raises(ValueError, match="takes no other"):
        model(noise(2, 128))
    with pytest.raises(ValueError, match="at least 90 pixels"):
        AnteHocForLandmarkDetection.from_backbone(LANDMARK_CNN, num_landmarks=3, image_size=64)
    timm.create_model(LANDMARK_CNN, img_size=90)
    with pytest.raises(ValueError, match="at least 90 pixels"):
        timm.create_model(LANDMARK_CNN, img_size=89)


# -- save and load ----------------------------------------------------------------------------------------------------

LOAD = """
from transformers import AutoImageProcessor, AutoModelForKeypointDetection
options = {"trust_remote_code": True} if remote else {}
results = []
for folder in folders:
    model = AutoModelForKeypointDetection.from_pretrained(folder, **options)
    processor = AutoImageProcessor.from_pretrained(folder, **options)
    with torch.no_grad():
        output = model(torch.load(f"{folder}/pixels.pt"))
    points = processor.post_process_keypoint_detection(output, [[100, 200]] * 2, model.config.landmark_names)
    results.append([output.landmarks, output.interpretation_map, points])
torch.save(results, results_file)
"""


@pytest.mark.parametrize("where", ["installed", "stranger"])
def test_reloaded_to_the_bit_in_another_process(build, noise, tmp_path, request, where):
    names, expected = ["a", "b", "c", "d", "e"], {}
    small = {"image_size": 112, "backbone_kwargs": {"width": 0.25}, "map_head": "energy"}
    for backbone, options in (("test_resnet", {"map_head": "contributions"}), (LANDMARK_CNN, small)):
        model = points_model(
            build, backbone, awake=True, landmark_names=names, landmark_parts={"all": [0, 1, 2]}, **options
        )
        folder, size = tmp_path / backbone, model.config.image_size[0]
        model.save_pretrained(folder)
        AnteHocImageProcessor.from_backbone(backbone, image_size=size).save_pretrained(folder)
        torch.save(noise(2, size), folder / "pixels.pt")
        with torch.no_grad():
            expected[folder] = model(noise(2, size))
    client, found = request.getfixturevalue(where), tmp_path / "output.pt"
    folders = [str(folder) for folder in expected]
    done = client.run(LOAD, folders=folders, remote=where == "stranger", results_file=str(found))
    assert done.error is None, done.error[2]
    results = torch.load(found, weights_only=False)
    for (folder, output), (landmarks, map_, points) in zip(expected.items(), results, strict=True):
        assert torch.equal(landmarks, output.landmarks)
        assert torch.equal(map_, output.interpretation_map)
        assert points[0]["names"] == names
        auto_map = json.loads((folder / "config.json").read_text())["auto_map"]
        assert auto_map["AutoModelForKeypointDetection"] == "landmark_detection.AnteHocForLandmarkDetection"


def test_project_and_remote_code_in_one_process(build, noise, tmp_path):
    """Both bring the paper's network along; timm must not complain of a name taken twice."""
    model = points_model(build, LANDMARK_CNN, image_size=112, backbone_kwargs={"width": 0.25})
    model.save_pretrained(tmp_path)
    again = AutoModelForKeypointDetection.from_pretrained(tmp_path, trust_remote_code=True)
    with torch.no_grad():
        assert torch.equal(again(noise(2, 112)).landmarks, model(noise(2, 112)).landmarks)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["contributions", "energy"])
def test_onnx(build, noise, tmp_path, kind):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = points_model(build, awake=True, map_head=kind)
    path = export_onnx(model, tmp_path / "model.onnx")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    landmarks, map_ = session.run(["landmarks", "interpretation_map"], {"pixel_values": noise(3, 64).numpy()})
    with torch.no_grad():
        expected = model(noise(3, 64))
    np.testing.assert_allclose(landmarks, expected.landmarks, atol=1e-4)
    np.testing.assert_allclose(map_, expected.interpretation_map, atol=1e-3)


# -- geometry ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
@pytest.mark.parametrize("shape", [(301, 517), (517, 301), (96, 96), (40, 50)])
@pytest.mark.parametrize("size", [[96, 96], [96, 128]])
def test_a_dot_is_found_where_the_geometry_says(shape, size, crop_pct, crop_mode):
    height, width = shape
    processor = AnteHocImageProcessor(size, [0.0] * 3, [1.0] * 3, "bilinear", crop_pct, crop_mode)
    geometry = processor.geometry(height, width)
    dot = torch.tensor([0.45 * width, 0.55 * height]).round()
    rows, columns = np.mgrid[0:height, 0:width]
    spread = min(height, width) / 24
    blob = np.exp(-((columns - dot[0].item()) ** 2 + (rows - dot[1].item()) ** 2) / (2 * spread**2))
    pixels = processor(Image.fromarray((255 * blob).astype(np.uint8)), return_tensors="pt")["pixel_values"][0, 0]
    mass = pixels.double() / pixels.double().sum()
    x = float((mass * (torch.arange(size[1]) + 0.5)).sum()) / size[1]
    y = float((mass * (torch.arange(size[0]) + 0.5)[:, None]).sum()) / size[0]
    assert geometry.to_input(dot).tolist() == pytest.approx([x, y], abs=0.1 / min(size))
    assert torch.allclose(geometry.to_image(geometry.to_input(dot)), dot, atol=1e-3)


def test_points_in_pixels_of_the_original_image():
    """128 pixels of an image of 256×512, cropped in the middle: the input spans x from 128 to 384."""
    processor = AnteHocImageProcessor(128, crop_pct=1.0)
    landmarks = torch.tensor([[[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]])
    (found,) = processor.post_process_keypoint_detection(AnteHocLandmarkOutput(landmarks=landmarks), [(256, 512)])
    assert found["keypoints"].tolist() == [[127.5, -0.5], [255.5, 127.5], [383.5, 255.5]]
    (own,) = processor.post_process_keypoint_detection(
        AnteHocLandmarkOutput(landmarks=landmarks), names=["a", "b", "c"]
    )
    assert own["keypoints"].tolist() == [[-0.5, -0.5], [63.5, 63.5], [127.5, 127.5]]
    assert own["names"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("arguments", "said"), [(([(10, 10)],), "1 sizes for 2 images"), ((None, ["a"]), "1 names for 3 points")]
)
def test_sizes_and_names_that_do_not_fit(arguments, said):
    processor = AnteHocImageProcessor(64)
    with pytest.raises(ValueError, match=said):
        processor.post_process_keypoint_detection(AnteHocLandmarkOutput(landmarks=torch.zeros(2, 3, 2)), *arguments)
