"""The objective of contributions: patches play a game, and a coalition is what is left of the image.

What a coalition is worth to a target is what the frozen network makes of that image. The contributions φ of the
patches are the additive approximation of the game, fitted to pairs of coalitions of one size, for all images by one
network: Jethani et al., "FastSHAP", ICLR 2022, Eq. 6; Covert, Kim, Lee, "Learning to estimate Shapley values with
vision transformers", ICLR 2023. With coalitions drawn by the Shapley kernel they are Shapley values (Lundberg, Lee,
"A unified approach to interpreting model predictions", NeurIPS 2017, Theorem 2).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from antehoc_hf.modeling.configuration_captions import IGNORED
from antehoc_hf.modeling.map_head import of_target
from antehoc_hf.modeling.modeling_antehoc import AnteHocPreTrainedModel
from antehoc_hf.modeling.scaling import contribution_map
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.objectives.base import CardSentences, FirstPassChange, Objective, check_map
from antehoc_hf.training.objectives.losses import coalition_loss
from antehoc_hf.training.objectives.partial_images import PartialImages
from antehoc_hf.training.objectives.patches import Background, Sampling, black_of, draw_partial_images, shown_images
from antehoc_hf.training.objectives.step import FirstPassRecord, SecondPassResult, TrainingStep
from antehoc_hf.training.options import Flag, Range, check_options

# Of the running mean of what the network says where nothing is left of the image: about the last fifty steps count.
_MEMORY = 0.02
# What nothing is worth is a mean over many steps, to which one of so many images of a batch is enough; words, each of
# which has a mean of its own, are met more rarely.
_SEEN_EMPTY, _WORDS_SEEN_EMPTY = 8, 2
_BACKGROUND_WORDS = {"mean": "the image's mean colour", "blur": "a blur", "black": "black"}


@dataclass(frozen=True)
class CoalitionOptions:
    """Options of [`CoalitionObjective`].

    Args:
        coalitions_per_image (`int`, *optional*, defaults to 2):
            Masked images of each image in a second pass, an even number: coalitions are compared in pairs of one size.
            Each costs a forward pass without gradient.
        sampling (`str`, *optional*, defaults to `"contiguous"`):
            `"contiguous"`: neighbouring patches tend to go together, all sizes are equally likely. `"ranked"`: the
            patches that the map of the predicted target puts first, give or take those of which it is not sure; all
            sizes are equally likely. `"shapley"`: sizes by the Shapley kernel, patches independent: the contributions
            become Shapley values.
        background (`str`, *optional*, defaults to `"mixed"`):
            What stands where a patch is missing: the image's `"mean"` colour, the image `"blur"`red, `"black"`, or one
            of the three at random.

    Raises:
        ValueError: for a value out of range.
    """

    coalitions_per_image: Annotated[int, Range(2, multiple_of=2)] = field(
        default=2, metadata={"help": "Masked images of each image in a second pass; even."}
    )
    sampling: Annotated[Sampling, Flag("coalition_sampling")] = field(
        default="contiguous",
        metadata={
            "help": "'contiguous' coalitions, those 'ranked' first by the map, or 'shapley' (the Shapley kernel)."
        },
    )
    background: Annotated[Background, Flag("coalition_background")] = field(
        default="mixed", metadata={"help": "In place of a missing patch: 'mean', 'blur', 'black', or 'mixed'."}
    )

    def __post_init__(self) -> None:
        check_options(self)


class CoalitionObjective(Objective):
    """Teaches contributions by what the frozen network makes of coalitions of patches.

    It costs a forward pass without gradient for each coalition. Its random numbers are its own: a function of the
    run's seed and the step.

    Its options are those of [`CoalitionOptions`], as an object or one by one: `coalitions_per_image=6`.
    """

    name: ClassVar[str] = "coalitions"
    options_class: ClassVar[type[CoalitionOptions]] = CoalitionOptions
    options: CoalitionOptions

    def check(self, model: AnteHocPreTrainedModel, args: AnteHocTrainingArguments) -> None:
        """Raises a ValueError if the model's map consists of no contributions."""
        check_map(self, model)

    def first_pass_change(self, model: AnteHocPreTrainedModel, share: float) -> FirstPassChange | None:
        """Images in part, drawn like the coalitions of the second pass."""
        if share == 0:
            return None
        return PartialImages(
            model.config, share, self.options.sampling, self.options.background, model.config.map_head.grid
        )

    def second_pass(self, step: TrainingStep, first: FirstPassRecord) -> SecondPassResult:
        """Coalitions of patches through the frozen network, without gradient; then the map head alone."""
        model, pixel_values = step.model, first.inputs["pixel_values"]
        chosen = model.explained_target(first.prediction)
        words = {name: first.inputs[name] for name in model.interpretation_inputs if name in first.inputs}

        def contributions() -> Tensor:
            return step.call(**first.inputs, tap_values=first.tap_values, phase="interpretation").contributions

        with model.interpretation_phase("eval"):
            with torch.no_grad():
                whole = first.prediction
                if model.worth_is_nearness and step.model.training:  # in the mode in which coalitions are seen
                    whole = model.prediction(step.call(pixel_values=pixel_values, phase="prediction"))

                def worth(images: Tensor, rows: Tensor) -> Tensor:
                    said = {name: ids[rows] for name, ids in words.items()}
                    outputs = step.call(pixel_values=images, **said, phase="prediction")
                    near = whole[rows] if model.worth_is_nearness else None
                    return model.worth(model.prediction(outputs), near, said.get("labels"))

                needs_ranking = self.options.sampling == "ranked"
                ranking = of_target(contributions(), chosen)[:, 0] if needs_ranking else None
                grid = (first.tap_values.shape[-2], first.tap_values.shape[-1])
                one_in = (_WORDS_SEEN_EMPTY if words else _SEEN_EMPTY) * (self.options.coalitions_per_image // 2)
                empty = -(-len(pixel_values) // one_in)
                outcome = self.play(
                    pixel_values, grid, worth, black_of(model.config), step.generator(0), ranking, empty
                )
            of_targets = contributions()
            loss = coalition_loss(of_targets, outcome.contrasts, outcome.gains)
            step.backward(loss)
        with torch.no_grad():
            self._remember(step, outcome, words.get("labels"))
            size = (pixel_values.shape[-2], pixel_values.shape[-1])
            maps, degenerate = contribution_map(of_target(of_targets, chosen), size)
        return SecondPassResult(loss.detach(), maps.mean(dim=(1, 2, 3)), degenerate)

    @staticmethod
    def _remember(step: TrainingStep, outcome: "GameOutcome", labels: Tensor | None) -> None:
        """Moves the map head's memory of what nothing is worth towards this round's mean; of words, one by one."""
        memory: Any = step.model.map_head.baseline_worth
        if labels is None:
            nothing = step.mean_over_processes(outcome.nothing.mean(dim=0))
            memory.lerp_(nothing.to(memory), _MEMORY / step.micro_batches)
            return
        words = labels[outcome.rows]
        counted = words != IGNORED
        both = torch.zeros(2, len(memory), device=memory.device, dtype=torch.float32)
        both[0].index_add_(0, words[counted], outcome.nothing[counted].float())
        both[1].index_add_(0, words[counted], torch.ones_like(words[counted], dtype=torch.float32))
        total, count = step.mean_over_processes(both)
        mean = (total / count.clamp_min(1e-9)).to(memory)
        memory.copy_(torch.where(count > 0, memory.lerp(mean, _MEMORY / step.micro_batches), memory))

    def play(
        self,
        pixel_values: Tensor,
        grid: tuple[int, int],
        worth: Callable[[Tensor, Tensor], Tensor],
        black: Tensor,
        generator: torch.Generator,
        ranking: Tensor | None = None,
        empty: int = 1,
    ) -> "GameOutcome":
        """One round: pairs of coalitions of each image, the two of a pair of one size.

        Args:
            pixel_values (`Tensor`): (B, 3, H, W), normalised.
            grid (`tuple[int, int]`): rows and columns of patches.
            worth: images, and (N,) of which of the images they are a version → what they are worth to each target,
                (N, K), without gradient.
            black (`Tensor`): (1, 3, 1, 1), black after the normalisation.
            generator (`torch.Generator`): on the CPU.
            ranking (`Tensor`, *optional*): (B, g, w), what the map says of the patches, for `sampling="ranked"`.
            empty (`int`): how many of the images are seen without any patch as well.
        """
        options, count = self.options, len(pixel_values)
        contrasts, gains, nothing = [], [], []
        every = torch.arange(count, device=pixel_values.device)
        few = every[:empty]
        for _ in range(options.coalitions_per_image // 2):
            (first, second), background = draw_partial_images(
                pixel_values, grid, options.sampling, options.background, black, generator, 2, ranking
            )
            images = [shown_images(pixel_values, drawn, background) for drawn in (first, second)]
            worths = worth(torch.cat([*images, background[: len(few)]]), torch.cat([every, every, few]))
            of_first, of_second, of_empty = worths.split([count, count, len(few)])
            contrasts.append(first.to(torch.int8) - second.to(torch.int8))
            gains.append(of_first - of_second)
            nothing.append(of_empty)
        rows = few.repeat(len(nothing))
        return GameOutcome(torch.stack(contrasts), torch.stack(gains), torch.cat(nothing), rows)

    def describe(self) -> CardSentences:
        """Least squares on coalitions, with the background that stood in place of missing patches."""
        words = _BACKGROUND_WORDS.get(self.options.background, "the image's mean colour, a blur or black")
        return CardSentences(
            second_pass="coalitions of patches",
            learned="by least squares on coalitions: versions of the image in which some patches are replaced by "
            f"{words}",
            limits=(
                f"No causal proof. It estimates how the prediction changes when patches are replaced by {words}; "
                "about other changes, or about causes in the world, it says nothing.",
            ),
        )


@dataclass(frozen=True)
class GameOutcome:
    """What one round of the game gave, without gradient.

    Args:
        contrasts (`Tensor`): (P, B, g, w), in which patches the two coalitions of each of P pairs differ.
        gains (`Tensor`): (P, B, K), how much more the first is worth than the second.
        nothing (`Tensor`): (N, K), what some images are worth to each target where nothing is left of them.
        rows (`Tensor`): (N,), which images of the batch these are.
    """

    contrasts: Tensor
    gains: Tensor
    nothing: Tensor
    rows: Tensor
