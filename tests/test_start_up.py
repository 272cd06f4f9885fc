"""What `import antehoc_hf` brings along: no more than any package of models for transformers and timm."""

import os
import subprocess
import sys

MODULES = "import sys; print(*sys.modules)"
# Whoever subclasses these and registers them has imported this much.
ANY_MODEL_PACKAGE = """
import timm, transformers
from transformers import AutoImageProcessor, AutoModel, GenerationMixin, Pipeline, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor
from transformers.pipelines import PIPELINE_REGISTRY
"""
LOAD_THE_EXAMPLE = """
from transformers import AutoImageProcessor, AutoModelForImageClassification
from antehoc_hf import example
model = AutoModelForImageClassification.from_pretrained(example.MODEL)
print(type(model).__name__, type(AutoImageProcessor.from_pretrained(example.MODEL)).__name__)
"""


def printed(code: str) -> list[list[str]]:
    """The words of each line that the code prints in a new process."""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [line.split() for line in ended.stdout.splitlines()]


def packages(modules: list[str]) -> set[str]:
    names = {name.partition(".")[0] for name in modules}
    return {name for name in names - sys.stdlib_module_names if not name.startswith("_")}


def test_importing_brings_only_what_models_need_and_is_enough_for_the_auto_classes() -> None:
    ours, loaded = printed(f"import antehoc_hf; {MODULES}{LOAD_THE_EXAMPLE}")
    (theirs,) = printed(ANY_MODEL_PACKAGE + MODULES)
    assert {"torch", "timm", "transformers"} <= packages(ours)
    assert packages(ours) - packages(theirs) == {"antehoc_hf"}
    assert "datasets" not in ours
    assert not [name for name in ours if name.startswith(("antehoc_hf.training.", "antehoc_hf.evaluation."))]
    assert loaded == ["AnteHocForImageClassification", "AnteHocImageProcessor"]


def test_a_help_of_which_the_beginning_is_read_ends_quietly() -> None:
    for argv in (["--help"], ["train", "--help-all"]):
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-m", "antehoc_hf", *argv]
        ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
        os.close(writer)
        assert (ended.returncode, ended.stderr) == (0, "")
