"""A program for the tests: loads saved models in a process of its own and writes down what they make of images.

Usage: `python fresh_process.py spec.json`, a file with `models` (folder and image for each), `output` and, optionally,
`auto_class` (a list, in place of image classification for each), `photo` (the first folder is then used in every other
way as well) and `remote` (the package cannot be imported, so
that the code in the checkpoints is what runs).
"""

import json
import sys


class Refusal:
    """Makes `import antehoc_hf` fail, as where the package is not installed."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] == "antehoc_hf":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main(spec):
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(99)
    if spec.get("remote"):
        sys.meta_path.insert(0, Refusal)
    else:
        import antehoc_hf  # noqa: F401  registers the classes
    import transformers

    options = {"trust_remote_code": True} if spec.get("remote") else {}
    results = []
    names = spec.get("auto_class") or ["AutoModelForImageClassification"] * len(spec["models"])
    for (folder, pixels), name in zip(spec["models"], names, strict=True):
        model = getattr(transformers, name).from_pretrained(folder, **options)
        config = transformers.AutoConfig.from_pretrained(folder, **options)
        with torch.no_grad():
            output = model(torch.load(pixels))
        results.append(
            {
                "class": type(model).__module__,
                "name": type(model).__name__,
                "config": type(config).__name__,
                "model_type": config.model_type,
                "kind": config.map_head.kind,
                "logits": output.get("logits"),
                "map": output.interpretation_map,
            }
        )
    if "photo" in spec:
        folder, pixels = spec["models"][0]
        bare = transformers.AutoModel.from_pretrained(folder, **options)
        with torch.no_grad():
            results[0]["features"] = bare(torch.load(pixels)).pooler_output
        processor = transformers.AutoImageProcessor.from_pretrained(folder, **options)
        results[0]["processed"] = processor(spec["photo"], return_tensors="pt")["pixel_values"]
        classify = transformers.pipeline("image-classification", model=folder, **options)
        results[0]["classes"] = classify(spec["photo"])
    torch.save(results, spec["output"])


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        main(json.load(file))
