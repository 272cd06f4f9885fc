"""transformers' own tests of models on ours; `test_transformers_mixin.py` runs them."""

import unittest
from typing import ClassVar

import torch

import antehoc_hf  # noqa: F401  registers the classes
from antehoc_hf.modeling import (
    AnteHocCaptionConfig,
    AnteHocConfig,
    AnteHocForImageCaptioning,
    AnteHocForImageClassification,
    AnteHocForLandmarkDetection,
    AnteHocLandmarkConfig,
    AnteHocModel,
)

from .test_modeling_common import ModelTesterMixin

NO_EMBEDDINGS = "an image has no embeddings"
PIXELS = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class Tester:
    """Configuration and images, as the mixin asks for them."""

    is_training, batch_size = True, 3

    def __init__(self, config_class, **options):
        self.make = lambda: config_class(backbone="test_resnet", image_size=64, **options)

    def get_config(self):
        return self.make()

    def prepare_config_and_inputs_for_common(self):
        return self.make(), {"pixel_values": PIXELS.clone()}


class Cases(ModelTesterMixin):
    """What the mixin has to know of all our models."""

    has_attentions = test_resize_embeddings = test_torch_exportable = False
    test_all_params_have_gradient = False  # the map head learns in a pass of its own

    def labels(self, model_class):
        raise NotImplementedError

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = dict(inputs_dict)
        if return_labels and model_class is not AnteHocModel:
            inputs["labels"] = self.labels()
        return inputs

    @unittest.skip(NO_EMBEDDINGS)
    def test_model_get_set_embeddings(self):
        pass

    @unittest.skip(NO_EMBEDDINGS)
    def test_inputs_embeds(self):
        pass

    def test_hidden_states_output(self):
        """The taps' activations, one for each."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            model = model_class(config).eval()
            taps = model(**inputs, output_hidden_states=True).hidden_states
            assert len(taps) == config.num_attention_maps
            assert all(tap.shape[0] == 3 and tap.ndim == 4 for tap in taps)

    def test_training(self):
        """Of what has a loss: transformers leaves out its own bare models by name."""
        self.all_model_classes = tuple(kind for kind in self.all_model_classes if kind is not AnteHocModel)
        super().test_training()

    def test_model_outputs_equivalence(self):
        """As a tuple what there is as an object; transformers' own subtracts, which truth values do not allow."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            model = model_class(config).eval()
            for labels in (False, True):
                for hidden in (False, True):
                    given = self._prepare_for_class(inputs, model_class, labels) | {"output_hidden_states": hidden}
                    with torch.no_grad():
                        as_object, as_tuple = model(**given), model(**given, return_dict=False)
                    assert len(as_object.to_tuple()) == len(as_tuple)
                    for one, other in zip(as_object.to_tuple(), as_tuple, strict=True):
                        parts = zip(one, other, strict=True) if isinstance(one, tuple) else [(one, other)]
                        assert all(torch.equal(a, b) for a, b in parts)


class ContributionClassifierTest(Cases, unittest.TestCase):
    all_model_classes = (AnteHocForImageClassification, AnteHocModel)

    def setUp(self):
        self.model_tester = Tester(AnteHocConfig, num_labels=4)

    def labels(self):
        return torch.tensor([0, 3, 1])


class EnergyClassifierTest(ContributionClassifierTest):
    def setUp(self):
        self.model_tester = Tester(AnteHocConfig, num_labels=4, map_head="energy")


class LandmarksTest(Cases, unittest.TestCase):
    all_model_classes = (AnteHocForLandmarkDetection,)

    map_head: ClassVar[dict[str, str]] = {}

    def setUp(self):
        self.model_tester = Tester(AnteHocLandmarkConfig, num_landmarks=5, **self.map_head)

    def labels(self):
        return torch.rand(3, 5, 2)


class CaptionsTest(Cases, unittest.TestCase):
    all_model_classes = (AnteHocForImageCaptioning,)
    map_head: ClassVar[dict[str, str]] = {}

    def setUp(self):
        words = {"vocab_size": 12, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        sizes = {"decoder_embedding_size": 16, "decoder_hidden_size": 24, "max_caption_length": 8}
        self.model_tester = Tester(AnteHocCaptionConfig, **words, **sizes, **self.map_head)

    def labels(self):
        return torch.tensor([[5, 6, 2], [7, 2, -100], [8, 9, 2]])

    @unittest.skip("transformers' sdist has no tests of `generate`; tests/modeling/test_image_captioning.py does")
    def test_generation_tester_mixin_inheritance(self):
        pass

    @unittest.skip("the bare model of a captioner is none of its parts")
    def test_model_base_model_prefix(self):
        pass

    @unittest.skip("a captioner has no special tokens by default: they are its tokenizer's")
    def test_model_forward_default_config_values(self):
        pass

    def test_retain_grad_hidden_states_attentions(self):
        """The taps are the only hidden states; transformers' own asks for the decoder's as well."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        outputs = AnteHocForImageCaptioning(config)(**inputs, output_hidden_states=True)
        tap = outputs.hidden_states[0]
        tap.retain_grad()
        outputs.logits.flatten()[0].backward()
        assert tap.grad is not None


class EnergyLandmarksTest(LandmarksTest):
    map_head: ClassVar[dict[str, str]] = {"map_head": "energy"}


class EnergyCaptionsTest(CaptionsTest):
    map_head: ClassVar[dict[str, str]] = {"map_head": "energy"}
