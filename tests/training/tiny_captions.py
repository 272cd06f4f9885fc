"""A tiny training of a captioner, for the tests of this folder and, as a program, for two processes:
`torchrun … tiny_captions.py spec.json` with `output_dir`, `batch_size` and `dump`.
"""

import json
import sys
from typing import Any

import torch
from tiny_run import build_args
from torch.utils.data import Dataset

from antehoc_hf.modeling import AnteHocForImageCaptioning
from antehoc_hf.training.data.captions import CaptionCollator
from antehoc_hf.training.trainer import AnteHocTrainer

SIZE, PAD, BOS, EOS = 64, 0, 1, 2
COLLATE = CaptionCollator(pad_token_id=PAD, bos_token_id=BOS)


class Captions(Dataset):
    """Noise with an offset that the words name; `ragged` captions differ in length, `draws` picks one at random."""

    def __init__(self, length: int = 24, ragged: bool = True, draws: bool = False) -> None:
        self.length, self.ragged, self.draws = length, ragged, draws

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        kind = index % 4
        image = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(index)) + 0.5 * kind
        words = [4 + kind] * (1 + kind if self.ragged else 3)
        if self.draws and int(torch.randint(2, ())):
            words = [*words, 3]
        return {"pixel_values": image, "labels": torch.tensor([*words, EOS])}


def build_model(backbone: str = "test_resnet", seed: int = 0, **config: Any) -> AnteHocForImageCaptioning:
    torch.manual_seed(seed)
    words = {"vocab_size": 9, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD, "max_caption_length": 8}
    sizes = {"decoder_embedding_size": 16, "decoder_hidden_size": 24, "map_head": "energy"}
    model: Any = AnteHocForImageCaptioning.from_backbone(backbone, image_size=SIZE, **{**words, **sizes, **config})
    return model


def main(path: str) -> None:
    with open(path, encoding="utf-8") as file:
        spec = json.load(file)
    model = build_model("test_nfnet")  # no batch norm: its statistics are each process's own
    torch.manual_seed(1)
    torch.nn.init.normal_(model.map_head.weight_network.head.weight, std=0.3)
    options = {
        "optim": "sgd", "max_grad_norm": 0.0, "interpretation_max_grad_norm": 0.0, "max_steps": 2,
        "interpretation_learning_rate": 0.1, "per_device_train_batch_size": spec["batch_size"],
    }  # fmt: skip
    args = build_args(spec["output_dir"], **options)
    trainer = AnteHocTrainer(model, args, train_dataset=Captions(32, ragged=False), data_collator=COLLATE)
    trainer.train()
    if args.process_index == 0:
        state = {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}
        torch.save({"processes": args.world_size, "state": state}, spec["dump"])
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
