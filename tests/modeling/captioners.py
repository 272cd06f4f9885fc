"""Small captioners, and images that they tell apart."""

import torch

from antehoc_hf.modeling import AnteHocForImageCaptioning

PAD, BOS, EOS = 0, 1, 2
WORDS = {
    "vocab_size": 12,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
    "max_caption_length": 8,
    "decoder_embedding_size": 16,
    "decoder_hidden_size": 24,
    "map_head": "energy",
}


def captioner(build, backbone="test_resnet", sharp=True, **config):
    """A captioner whose words depend on the image and on each other, as those of a trained one."""
    model = build(backbone, kind=AnteHocForImageCaptioning, awake=True, **{**WORDS, **config})
    if sharp:
        torch.manual_seed(5)
        for name, parameter in model.decoder.named_parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=3.0 if "image" in name else 1.5 if "output" in name else 0.7)
    return model.eval()


def different_images(noise, count=3, size=64):
    return noise(count, size) * 2 + torch.arange(count).view(-1, 1, 1, 1)
