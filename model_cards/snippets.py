"""How a model is used, for each task: code that a test runs as it stands."""

import json

from antehoc_hf.model_cards.data import ANTEHOC, CardData
from antehoc_hf.model_cards.map_texts import texts_of

_LOADING = """\
{first}from PIL import Image
from transformers import {imports}

name = {name}
model = {auto}.from_pretrained(name{trust}).eval()
processor = AutoImageProcessor.from_pretrained(name{trust})
{more}
image = Image.open("photo.jpg")
inputs = processor(image, return_tensors="pt")
{use}{map}"""

_HEADS = {
    "image-classification": "AutoModelForImageClassification",
    "landmark-detection": "AutoModelForKeypointDetection",
    "image-captioning": "AutoModelForImageTextToText",
}
_FIRST_TARGETS = {"image-classification": "class 0", "landmark-detection": "point 0"}
_LANDMARKS = """\
outputs = model(**inputs)
sizes = [(image.height, image.width)]
print(processor.post_process_keypoint_detection(outputs, sizes)[0]["keypoints"])  # pixels, x and y"""
_CAPTIONS = """\
outputs = model.caption(inputs["pixel_values"])
print(tokenizer.batch_decode(outputs.sequences, skip_special_tokens=True)[0])"""


def snippet(card: CardData) -> str:
    """Loading, predicting, and the map."""
    auto = _HEADS[card.task]
    names = ["AutoImageProcessor", auto]
    more, use = "", "outputs = model(**inputs)\nprint(model.config.id2label[outputs.logits.argmax(-1).item()])"
    if card.task == "landmark-detection":
        use = _LANDMARKS
    elif card.task == "image-captioning":
        names.append("AutoTokenizer")
        more, use = "tokenizer = AutoTokenizer.from_pretrained(name)\n", _CAPTIONS
    elif card.problem_type == "multi_label_classification":
        use = "outputs = model(**inputs)\nfor index in (outputs.logits[0] > 0).nonzero().flatten().tolist():\n"
        use += "    print(model.config.id2label[index])"
    elif card.problem_type == "regression":
        use = "outputs = model(**inputs)\nprint(outputs.logits[0].tolist())"
    ours = card.method == ANTEHOC
    size = "".join(f", {side}" for side in card.image_size or ())
    shape = f"\nprint(outputs.interpretation_map.shape)  # (1, 1{size}): where it looked, in [0, 1]"
    if texts_of(card).per_target and card.task in _FIRST_TARGETS:
        first = _FIRST_TARGETS[card.task]
        shape += f'\nfirst = model.interpretation(inputs["pixel_values"], target=0).interpretation_map  # of {first}'
    return _LOADING.format(
        first="" if ours else "import antehoc_hf  # makes the model known to transformers\n",
        imports=", ".join(sorted(names)),
        auto=auto,
        trust=", trust_remote_code=True" if ours else "",
        name=json.dumps(card.repo_id) if card.repo_id else '"."  # this folder',
        more=more,
        use=use,
        map=shape if ours else "",
    )
