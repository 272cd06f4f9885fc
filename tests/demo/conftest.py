"""A small model of each task, as the demo loads it, and an image."""

import numpy as np
import pytest
import torch
from PIL import Image

from antehoc_hf import AnteHocForImageClassification, AnteHocForLandmarkDetection, AnteHocImageProcessor
from antehoc_hf.demo.models import DemoModel, load_demo_model
from antehoc_hf.modeling import AnteHocForImageCaptioning
from antehoc_hf.training.data.captions import build_tokenizer

NAMES = {0: "cat", 1: "dog", 2: "<b>owl</b>", 3: "eel"}


@pytest.fixture(scope="session", autouse=True)
def gradios_files(tmp_path_factory):
    """Where gradio keeps what it shows, instead of a folder of the machine's that stays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        yield


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("demo")
    AnteHocForImageClassification.from_backbone(
        "test_resnet", id2label=NAMES, image_size=64, map_head="energy"
    ).save_pretrained(root / "classes")
    AnteHocForLandmarkDetection.from_backbone(
        "test_resnet", num_landmarks=3, landmark_names=["left", "right", "top"], image_size=64
    ).save_pretrained(root / "landmarks")
    tokenizer = build_tokenizer(["a black dog runs on grass"] * 2, min_word_count=1, max_caption_length=6)
    captioner = AnteHocForImageCaptioning.from_backbone(
        "test_resnet", image_size=64, vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=0,
        max_caption_length=6, decoder_embedding_size=8, decoder_hidden_size=12,
    )  # fmt: skip
    for name, parameter in captioner.decoder.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=3.0 if "image" in name else 1.0)
    captioner.save_pretrained(root / "captions")
    tokenizer.save_pretrained(root / "captions")
    for kind in ("classes", "landmarks", "captions"):
        AnteHocImageProcessor.from_backbone("test_resnet", image_size=64, crop_pct=1.0).save_pretrained(root / kind)
    return root


@pytest.fixture(scope="session")
def models(folders) -> dict[str, DemoModel]:
    return {kind: load_demo_model(str(folders / kind)) for kind in ("classes", "landmarks", "captions")}


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """128 × 96 pixels."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8))
