"""Few-shot classification with global and local features (method 5): what a picture is, and which class it is nearest.

A picture's global feature is its whole map, or the map's mean where a region is compared with it; its local feature is
the one region, a position of the map, that is most like its own class and least like the others. All are directions, so
every similarity is a cosine.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from crnn.characters.descriptions import picture_weights, refuse_bare

Representation = Literal["global", "local", "both"]
Comparison = Literal["difference", "ratio"]

LEAST = 1e-6
"""What a similarity to other classes counts as at least where the first is divided by it."""


@dataclass(frozen=True)
class MatchingOptions:
    """How pictures are told apart.

    representation: global feature, local feature, or both, one after the other. attention: how the two similarities of
    a region become one value. weighted: unlike pictures of a class count less in its description.
    """

    representation: Representation = "global"
    attention: Comparison = "difference"
    weighted: bool = True

    def __post_init__(self) -> None:
        if self.representation not in ("global", "local", "both"):
            raise ValueError(f"the representation {self.representation!r} is not known; give global, local or both")
        if self.attention not in ("difference", "ratio"):
            raise ValueError(f"the attention {self.attention!r} is not known; give difference or ratio")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Support(NamedTuple):
    """Classes as their pictures describe them.

    sums (N, D): of each class's mean features. counts (N,): its pictures. whole (N, R * D), part (N, D): descriptions
    of its maps and of its local features, of length 1. places (M,): the region of each support picture.
    """

    sums: Tensor
    counts: Tensor
    whole: Tensor
    part: Tensor
    places: Tensor


class Matching(NamedTuple):
    """Queries beside every class. similarity (Q, N): cosine to its description. attention (Q, N, R)."""

    similarity: Tensor
    attention: Tensor


def whole_maps(maps: Tensor) -> Tensor:
    """(M, D, rows, columns) -> (M, D * R), of length 1: the global feature by which pictures are told apart."""
    return functional.normalize(maps.flatten(1), dim=-1)


def mean_features(maps: Tensor) -> Tensor:
    """(M, D, rows, columns) -> (M, D), the mean over positions, of length 1: what regions are compared with."""
    return functional.normalize(maps.mean((2, 3)), dim=-1)


def region_features(maps: Tensor) -> Tensor:
    """(M, D, rows, columns) -> (M, R, D), R = rows * columns, each of length 1."""
    return functional.normalize(maps.flatten(2).transpose(1, 2), dim=-1)


def attention_values(
    regions: Tensor, sums: Tensor, counts: Tensor, comparison: Comparison, own: Tensor | None = None,
    itself: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """How much each region speaks for each class, (M, N, R), or for the own class alone, (M, 1, R).

    The first similarity, the mean cosine to the mean features of the class, minus the second, that to those of all
    other classes; or divided by it. regions: (M, R, D); sums, counts: see Support. own: (M,) the class of each picture
    where they are of the support themselves, and itself (M, D) its mean feature, which its own class then goes without;
    one that is alone in its class counts itself. Where there is no other class the second is 0.
    """
    to_classes = torch.einsum("mrd,nd->mnr", regions, sums)  # (M, N, R), summed over the pictures of a class
    total, pictures = to_classes.sum(1, keepdim=True), counts.sum()
    if own is None or itself is None:
        first = to_classes / counts[:, None]
        others, outside = total - to_classes, pictures - counts[:, None]
    else:
        mine = to_classes.gather(1, own[:, None, None].expand(-1, 1, to_classes.shape[2]))  # (M, 1, R)
        members = counts[own][:, None, None]
        with_itself = torch.einsum("mrd,md->mr", regions, itself)[:, None]
        first = torch.where(members > 1, (mine - with_itself) / (members - 1).clamp(min=1), with_itself)
        others, outside = total - mine, pictures - members
    second = others / outside.clamp(min=1)
    if comparison == "ratio":
        return first / second.clamp(min=LEAST)
    return first - second


def local_features(regions: Tensor, attention: Tensor) -> Tensor:
    """(M, R, D), (M, N, R) -> (M, N, D): the region of the largest attention, of length 1.

    Its gradient is that of the mean weighted by the softmax of attention, so that the attention learns too.
    """
    soft = attention.softmax(-1) @ regions  # (M, N, D)
    places = attention.argmax(-1)  # (M, N)
    hard = regions.gather(1, places[..., None].expand(-1, -1, regions.shape[2]))
    return functional.normalize(hard + soft - soft.detach(), dim=-1)


class RegionMatcher(nn.Module):
    """Support and query maps -> how near each query is to each class; its temperatures are learnt.

    regions: of the softmax over regions. pictures: of the softmax over the pictures of a class. sharpness: what
    similarities are multiplied with before the softmax over classes. balance: where a representation is both features,
    one after the other, what share of its squared length is the global one's; learnt from a half on.
    """

    def __init__(self, options: MatchingOptions) -> None:
        super().__init__()
        self.options = options
        self.regions = nn.Parameter(torch.tensor(0.1).log())
        self.pictures = nn.Parameter(torch.tensor(0.1).log())
        self.sharpness = nn.Parameter(torch.tensor(20.0).log())
        self.balance = nn.Parameter(torch.tensor(0.0))

    def support(self, maps: Tensor, labels: Tensor, classes: int) -> Support:
        """(M, D, rows, columns), (M,) in 0..classes - 1 -> what describes the classes.

        Raises ValueError naming a class without a picture.
        """
        refuse_bare(labels, classes)
        whole, mean, regions = whole_maps(maps), mean_features(maps), region_features(maps)
        counts = torch.bincount(labels, minlength=classes).to(mean.dtype)
        sums = mean.new_zeros(classes, mean.shape[1]).index_add_(0, labels, mean)
        attention = attention_values(regions, sums, counts, self.options.attention, labels, mean) / self.regions.exp()
        part = local_features(regions, attention)[:, 0]  # (M, D)
        weights = picture_weights(self.represented(whole, part), labels, classes, self.pictures.exp())
        if not self.options.weighted:
            weights = torch.ones_like(weights)
        described = [
            functional.normalize(each.new_zeros(classes, each.shape[1]).index_add_(0, labels, weights[:, None] * each))
            for each in (whole, part)
        ]
        return Support(sums, counts, described[0], described[1], attention[:, 0].argmax(-1))

    def forward(self, support: Support, maps: Tensor) -> Matching:
        """Queries (Q, D, rows, columns) -> their similarity to each class, and what they looked at for it.

        A query has no known class, so its local feature is found for every class as if it belonged to it.
        """
        regions = region_features(maps)
        attention = attention_values(regions, support.sums, support.counts, self.options.attention)
        similarity = maps.new_zeros(())
        if self.options.representation != "local":
            similarity = self.share * (whole_maps(maps) @ support.whole.T)  # (Q, N)
        if self.options.representation != "global":
            part = local_features(regions, attention / self.regions.exp())  # (Q, N, D)
            similarity = similarity + (1 - self.share) * (part * support.part).sum(-1)
        return Matching(similarity, attention)

    @property
    def share(self) -> Tensor:
        """Of the global feature in a representation, 0..1."""
        fixed = {"global": 1.0, "local": 0.0}.get(self.options.representation)
        return self.balance.sigmoid() if fixed is None else torch.full_like(self.balance, fixed)

    def represented(self, whole: Tensor, part: Tensor) -> Tensor:
        """The representation of pictures, of length 1: (M, R * D), (M, D) -> (M, R * D + D)."""
        return torch.cat([self.share.sqrt() * whole, (1 - self.share).sqrt() * part], -1)

    def log_probs(self, similarity: Tensor) -> Tensor:
        """(Q, N) -> (Q, N)."""
        return (self.sharpness.exp() * similarity).log_softmax(-1)
