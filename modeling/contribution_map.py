"""The contribution map: what each patch of the image contributes to the worth of each target."""

from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .map_head import ContributionHead, Explanation, MapHeadConfig, Predict, Size, Targets, check_channels, of_target
from .scaling import bounded_exp, box_blurred, centred_blob, full_precision, on_grid, patch_grid, scaled_vectors

if TYPE_CHECKING:
    from .configuration_antehoc import AnteHocConfig


class ContributionMapConfig(MapHeadConfig):
    r"""Options of a [`ContributionMap`].

    Args:
        grid (`int`, *optional*, defaults to 8): Patches along the image's shorter side.
        width (`int`, *optional*, defaults to 64): Channels inside the network.
        closed_form (`bool`, *optional*, defaults to `False`): A [`ClosedFormMap`] instead of a network: a few dozen
            coefficients, fitted to a finished classifier without any gradient.
        floor (`str`, *optional*): What is 0 in the map: `"least"`, the patch that speaks most against the target;
            `"zero"`, every patch that does not speak for it. Defaults to `"least"`, and to `"zero"` where targets are
            points or words, which have no opposite.

    Raises:
        ValueError: for a value that makes no sense, or a task that this kind of map cannot explain.
    """

    model_type = "antehoc_contribution_map"
    kind: ClassVar[str] = "contributions"
    objective: ClassVar[str] = "coalitions"
    per_target: ClassVar[bool] = True
    counts: ClassVar[tuple[str, ...]] = ("grid", "width")
    choices: ClassVar[Mapping[str, tuple[str | None, ...]]] = {"floor": (None, "least", "zero")}

    grid: int = field(
        default=8, metadata={"help": "Patches along the image's shorter side.", "flag": "contribution_grid"}
    )
    width: int = 64
    closed_form: bool = False
    floor: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.grid < 2:
            raise ValueError("grid=1 is a single patch, which says nothing about where: use at least 2.")
        if not isinstance(self.closed_form, bool):
            raise ValueError(f"closed_form={self.closed_form!r} must be true or false.")

    @property
    def reads_classifier(self) -> bool:
        """In closed form."""
        return self.closed_form

    def fit(self, config: "AnteHocConfig") -> None:
        """The closed form reads probabilities of classes; what is 0 in a map depends on the task."""
        if self.closed_form and not config.has_classes:
            raise ValueError("A map in closed form explains the probabilities of classes: leave closed_form out.")
        self.floor = self.floor or config.map_floor

    def build(self, config: "AnteHocConfig", classifier: nn.Module | None) -> "ContributionMap | ClosedFormMap":
        """A new head; it learns the targets' vectors itself where there is no classifier with a weight vector for each
        target that is linear on the last tap.

        Raises:
            ValueError: if it is not, and a map in closed form was asked for.
        """
        assert config.tap_channels is not None
        num_targets, weight = config.num_targets, getattr(classifier, "weight", None)
        attentions = len(config.class_token_taps or []) if self.closed_form else 0
        widths = [config.tap_channels[-1] * times for times in ((1, 2) if attentions else (1,))]  # see ClosedFormMap
        linear = isinstance(weight, Tensor) and weight.flatten(1).shape in [(num_targets, width) for width in widths]
        if self.closed_form and not linear:
            raise ValueError(
                f"A map in closed form reads the last layer with the weights of the classifier, but that of "
                f"{config.backbone!r} is not linear on it: train its map by steps instead, with antehoc train "
                "--train_task false, or AnteHocTrainer and map_head='contributions'."
            )
        if self.closed_form:
            return ClosedFormMap(config.tap_channels, num_targets, self.grid, self.floor or "least", attentions)
        return ContributionMap(
            config.tap_channels,
            num_targets,
            self.width,
            own_vectors=not linear,
            grid=self.grid,
            query_size=config.query_size,
            worth_of_nothing=config.worth_of_nothing,
            floor=self.floor or "least",
        )


class ContributionMap(ContributionHead):
    """From the activations of the taps to φ, one number for each target and patch: what the patch contributes.

    φ of target k is what the head reads at the patch, weighted as the head weighs it for that target, each feature
    gated by what the earlier layers say of the patch: φ_k = w_k · (f ⊙ (γ + s)). With one gate γ for all it is class
    activation mapping (Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, Eq. 2); the
    gates s start at 0 and are learned. All evidence passes through the last layer's features and the head's weights:
    where these know nothing, the map says nothing. What a patch contributes depends on all the others, so each layer
    also sees the mean over all patches. No batch norm: a map must not depend on what else is in the batch.

    Args:
        tap_channels (`list[int]`): channels C_n of the η taps, the one that the head pools last.
        num_targets (`int`): K.
        width (`int`): channels inside.
        own_vectors (`bool`): learn the vectors w_k, for networks whose head has none.
        depth (`int`): 3×3 convolutions.
        grid (`int`): patches along the image's shorter side.
        query_size (`int`): D, of the queries from which the vectors are made where the targets of each image are its
            own; 0: they are the same for all.
        worth_of_nothing (`float`): what an image without any patch is taken to be worth before training.
        floor (`str`): what is 0 in the map, see [`contribution_map`].
    """

    def __init__(
        self,
        tap_channels: list[int],
        num_targets: int,
        width: int = 64,
        own_vectors: bool = False,
        depth: int = 2,
        grid: int = 8,
        query_size: int = 0,
        worth_of_nothing: float = 0.0,
        floor: str = "least",
    ) -> None:
        super().__init__()
        self.grid, self.floor, self.read_channels = grid, floor, sum(tap_channels)
        self.tap_channels = list(tap_channels)
        self.entry = nn.Conv2d(self.read_channels, width, kernel_size=1)
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, kernel_size=3, padding=1) for _ in range(depth))
        self.context = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.gates = nn.Conv2d(width, tap_channels[-1], kernel_size=1)
        for parameter in self.gates.parameters():
            nn.init.zeros_(parameter)
        self.gain = nn.Parameter(torch.full((1,), 0.3))
        self.own_vectors: nn.Parameter | None = None
        self.query: nn.Module | None = None
        if query_size:
            self.query = nn.Sequential(nn.Linear(query_size, width), nn.ReLU(), nn.Linear(width, tap_channels[-1]))
        elif own_vectors:
            self.own_vectors = nn.Parameter(torch.randn(num_targets, tap_channels[-1]) / tap_channels[-1] ** 0.5)
        # Mean worth to each target of images of which nothing is left, as met in training.
        self.register_buffer("baseline_worth", torch.full((num_targets,), worth_of_nothing))

    def keep(self, features: Tensor, size: Size) -> Tensor:
        """One tap's activations (B, C, h, w) on the grid of patches, (B, C, g, w) float32."""
        return on_grid(features.detach(), patch_grid(size, self.grid))

    def combine(self, kept: list[Tensor], size: Size) -> Tensor:
        """(B, Σ C_n, g, w) float32.

        Raises:
            ValueError: if the taps have other channels than the configuration says.
        """
        check_channels([tap.shape[1] for tap in kept], self.tap_channels)
        return torch.cat(kept, dim=1)

    def second_pass(
        self, tap_values: Tensor, size: Size, targets: Targets | None, predict_masked: Predict
    ) -> tuple[None, Explanation]:
        """No prediction; the contributions to all targets, before their sum is fixed."""
        assert targets is not None
        return None, Explanation(contributions=self.contributions(tap_values, targets, of_all=True))

    def contributions(self, tap_values: Tensor, targets: Targets, of_all: bool) -> Tensor:
        """φ before [`with_total`] fixes its sum, in units of worth: (B, K, g, w) float32, or (B, 1, g, w)."""
        dtype, chosen = self.entry.weight.dtype, targets.chosen
        if self.query is not None:
            assert targets.queries is not None
            vectors = self.query(targets.queries.to(dtype))
            if targets.counted is not None:
                vectors = vectors * targets.counted[..., None]
        elif self.own_vectors is not None:
            vectors = self.own_vectors
        else:  # the model's own head, which learns nothing here
            assert targets.vectors is not None
            single = not of_all and chosen is not None and chosen.ndim == 1
            weight = targets.vectors.detach().flatten(1)
            vectors = scaled_vectors(weight, targets.exclusive, chosen if single else None).to(dtype)
            if single:
                return self._gated_evidence(tap_values.to(dtype), vectors.unsqueeze(1))
        if not of_all:
            vectors = of_target(vectors.expand(tap_values.shape[0], -1, -1), chosen)
        return self._gated_evidence(tap_values.to(dtype), vectors)

    def _gated_evidence(self, features: Tensor, vectors: Tensor) -> Tensor:
        """φ of vectors (K, C_η), or (B, K, C_η) if those of each image are its own."""
        hidden = F.relu(self.entry(features))
        for convolution, context in zip(self.convolutions, self.context, strict=True):
            hidden = hidden + context(hidden.mean(dim=(2, 3)))[:, :, None, None]
            hidden = hidden + F.relu(convolution(hidden))
        assert self.gates.bias is not None
        read = features[:, -vectors.shape[-1] :]
        evidence = read * F.conv2d(hidden, self.gates.weight, self.gates.bias + self.gain)
        patches = features.shape[-2:]
        # A product of matrices: a 1×1 convolution takes several times as long on a CPU. In float32, since what all
        # patches have in common cancels in the end.
        with full_precision(evidence):
            contributions = vectors.float() @ evidence.flatten(2).float()
        return contributions.unflatten(2, patches) / patches.numel()


# How far what a patch shows is taken out of the logits (negative) or added to them, in multiples of what all patches
# together show; see [`ClosedFormMap`].
_STRENGTHS = (-2.0, -0.5, -0.125, 0.03, 0.125, 0.5, 2.0)
_RIVALS = 16
_BLURS = 3


class ClosedFormMap(ContributionHead):
    """φ as a weighted sum of a few responses of each patch; the weights come from linear regression, not from
    training.

    With z the class evidence of the head at a patch (Zhou et al., CVPR 2016, Eq. 2) in units of logits, e = z − mean
    over patches, p the probability, and r_n the root mean square of tap n at the patch over that of the image, the
    responses are: e; p·e; what p becomes when a multiple of e is added to the logits of the class and its likeliest
    rivals, for seven multiples; p·r_n and z·r_n for each tap; p times a centred Gaussian. Each of them also blurred by
    3×3 patches once and twice. All but e and z·r_n vanish with p: a class that has nothing to lose has an empty map.
    Before it is fitted the map shows p·e.

    Where the head reads a class token alone, z is what that takes directly from the patch in all attentions together
    (see [`taken_by_class_token`]). Where it reads one, there are e and p·e of the last tap and each attention, too.

    Args:
        tap_channels, num_targets, grid, floor: as in [`ContributionMap`].
        attentions (`int`): how many attentions are read; their features come behind those of the taps.
    """

    start_index = 1  # of the coefficient of p·e
    coefficients: Tensor
    logit_scale: Tensor

    def __init__(
        self, tap_channels: list[int], num_targets: int, grid: int = 8, floor: str = "least", attentions: int = 0
    ) -> None:
        super().__init__()
        self.grid, self.floor, self.taps = grid, floor, len(tap_channels)
        self.sources = 1 + attentions  # of class evidence
        self.read_channels = self.taps + self.sources * tap_channels[-1]
        self.tap_channels = [*tap_channels, *tap_channels[-1:] * attentions]
        responses = 2 + len(_STRENGTHS) + 2 * self.taps + 1 + (2 * self.sources if attentions else 0)
        self.register_buffer("coefficients", torch.zeros(_BLURS, responses))
        self.coefficients[0, self.start_index] = 1 / grid**2
        # Logits over what the head's weights make of the mean of the last tap: 1 but for what lies in between.
        self.register_buffer("logit_scale", torch.ones(()))
        self.register_buffer("baseline_worth", torch.full((num_targets,), 1 / num_targets))

    def keep(self, features: Tensor, size: Size) -> Tensor:
        """One tap's activations (B, C, h, w) on the grid of patches, (B, C, g, w) float32, not scaled."""
        return on_grid(features.detach(), patch_grid(size, self.grid), scaled=False)

    def combine(self, kept: list[Tensor], size: Size) -> Tensor:
        """(B, η + C_η, g, w) float32: how strong each tap is at each patch, then the last tap, and C_η more of each
        attention; checked as there.
        """
        check_channels([tap.shape[1] for tap in kept], self.tap_channels)
        strong = [torch.linalg.vector_norm(tap, dim=1, keepdim=True) for tap in kept[: self.taps]]
        overall = [norm.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6) for norm in strong]
        levels = [norm / scale for norm, scale in zip(strong, overall, strict=True)]
        return torch.cat([*levels, *kept[self.taps - 1 :]], dim=1)

    def second_pass(
        self, tap_values: Tensor, size: Size, targets: Targets | None, predict_masked: Predict
    ) -> tuple[None, Explanation]:
        """Raises `ValueError`: nothing here learns by gradient."""
        raise ValueError(
            "A map in closed form is not trained step by step: fit it with antehoc_hf.training.attach.fit_map, or "
            "train a model without closed_form."
        )

    def contributions(self, tap_values: Tensor, targets: Targets, of_all: bool) -> Tensor:
        """φ before [`with_total`] fixes its sum, in units of worth: (B, K, g, w) float32, or (B, 1, g, w)."""
        assert targets.chosen is not None
        classes = None if of_all else targets.chosen[:, None]
        with full_precision(tap_values):
            return self._weighted(tap_values, targets, classes)

    def _weighted(self, tap_values: Tensor, targets: Targets, classes: Tensor | None) -> Tensor:
        sums: list[Tensor] = []
        coefficients = self.coefficients.float()
        for number, response in enumerate(self._responses(tap_values.float(), targets, classes)):
            terms = [weight * response for weight in coefficients[:, number]]
            sums = [total + term for total, term in zip(sums, terms, strict=True)] if sums else terms
        sharp, once, twice = sums
        return sharp + box_blurred(once + box_blurred(twice))

    def responses(self, tap_values: Tensor, targets: Targets, classes: Tensor) -> Tensor:
        """What the coefficients weigh, in their order: (B, T, 3 · responses, g, w) for targets (B, T)."""
        sharp = list(self._responses(tap_values.float(), targets, classes))
        once = [box_blurred(response) for response in sharp]
        return torch.stack([*sharp, *once, *map(box_blurred, once)], dim=2)

    def mean_evidence(self, tap_values: Tensor, targets: Targets) -> Tensor:
        """What the head's weights make of the mean over all patches, (B, K) float32."""
        assert targets.vectors is not None
        mean = self._read(tap_values, targets)[0].float().mean(dim=(2, 3))
        return F.linear(mean, targets.vectors.detach().flatten(1)[:, -mean.shape[1] :].float())

    def _read(self, tap_values: Tensor, targets: Targets) -> tuple[Tensor, list[Tensor]]:
        """What class evidence is made of, (B, C_η, g, w), and the last tap with its attentions, if there are any."""
        last, *taken = tap_values[:, self.taps :].chunk(self.sources, dim=1)
        assert targets.vectors is not None
        alone = taken and targets.vectors.flatten(1).shape[1] == last.shape[1]  # a class token, no patches beside it
        return torch.stack(taken).sum(dim=0) if alone else last, [last, *taken] if taken else []

    def _responses(self, tap_values: Tensor, targets: Targets, classes: Tensor | None) -> Iterator[Tensor]:
        """(B, T, g, w) one after the other: of a thousand classes all of them at once would fill the memory."""
        levels, (read, parts) = tap_values[:, : self.taps], self._read(tap_values, targets)
        worth = targets.worth if classes is None else targets.worth.gather(1, classes)
        p = worth[:, :, None, None]
        z = self._evidence(read, targets, classes)
        e = z - z.mean(dim=(2, 3), keepdim=True)
        yield e
        yield p * e
        if targets.exclusive:
            rivals = targets.worth.topk(min(_RIVALS, targets.worth.shape[1]), dim=1)
            others = rivals.values[:, :, None, None]
            of_rivals = self._evidence(read, targets, rivals.indices)
            of_rivals = of_rivals - of_rivals.mean(dim=(2, 3), keepdim=True)
            rest = (1 - others.sum(dim=1, keepdim=True)).clamp_min(1e-6)
            for strength in _STRENGTHS:
                together = (others * bounded_exp(strength * of_rivals)).sum(dim=1, keepdim=True) + rest
                yield p * bounded_exp(strength * e) / together
        else:
            for strength in _STRENGTHS:
                grown = p * bounded_exp(strength * e)
                yield grown / (grown + (1 - p).clamp_min(1e-6))
        for tap in range(self.taps):
            yield p * levels[:, tap : tap + 1]
            yield z * levels[:, tap : tap + 1]
        yield p * centred_blob(levels).expand_as(z)
        for part in parts:
            of_part = self._evidence(part, targets, classes, of_token=part is not parts[0])
            of_part = of_part - of_part.mean(dim=(2, 3), keepdim=True)
            yield of_part
            yield p * of_part

    def _evidence(self, read: Tensor, targets: Targets, classes: Tensor | None, of_token: bool = False) -> Tensor:
        """What the head reads at each patch for the classes (B, T), or for all: (B, T, g, w), in units of logits."""
        assert targets.vectors is not None
        weight, width = targets.vectors.detach().flatten(1), read.shape[1]
        weight = weight[:, :width] if of_token else weight[:, -width:]  # a class token comes before a mean of patches
        vectors = (weight if classes is None else weight[classes]).float()
        if targets.exclusive:  # what the classes have in common changes no probability
            vectors = vectors - weight.float().mean(dim=0)
        return (self.logit_scale.float() * (vectors @ read.flatten(2))).unflatten(2, read.shape[-2:])
