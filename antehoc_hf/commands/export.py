"""`antehoc export`: a model as ONNX."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from antehoc_hf.export import export_onnx, loaded_model


def export(argv: Sequence[str]) -> None:
    """`antehoc export MODEL --output model.onnx`."""
    parser = argparse.ArgumentParser("antehoc export", description="Writes a model as ONNX.")
    parser.add_argument("model", help="folder or Hub name of a trained model")
    parser.add_argument("--output", type=Path, help="the file to write; model.onnx in the folder if left out")
    options = parser.parse_args(list(argv))
    folder = Path(options.model)
    output = options.output or (folder / "model.onnx" if folder.is_dir() else Path("model.onnx"))
    model = loaded_model(options.model)
    path = export_onnx(model, output)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB): pixel_values → {', '.join(model.onnx_outputs)}")
