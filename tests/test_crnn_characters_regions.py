"""Region attention and few-shot matching: formulas against a slow recomputation, limiting cases, what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from crnn.characters.regions import (
    MatchingOptions,
    RegionMatcher,
    Representation,
    attention_values,
    local_features,
    mean_features,
    region_features,
    whole_maps,
)

Array = NDArray[Any]
CLASSES, SHOTS, QUERIES, CHANNELS, ROWS, COLUMNS = 3, 4, 5, 6, 2, 3
REGIONS = ROWS * COLUMNS
OWN = [number for number in range(CLASSES) for _ in range(SHOTS)]


def some_maps(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, CHANNELS, ROWS, COLUMNS, generator=torch.Generator().manual_seed(seed))


def unit(vector: Array) -> Array:
    return np.asarray(vector / math.sqrt(sum(float(x) ** 2 for x in vector)))


def slow_mean(one: Array) -> Array:
    return unit(np.array([channel.sum() / REGIONS for channel in one]))


def slow_region(one: Array, place: int) -> Array:
    return unit(one.reshape(CHANNELS, REGIONS)[:, place])


def average(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def slow_attention(one: Array, same: list[Array], other: list[Array]) -> list[float]:
    """Of each region of a map: mean cosine to the means of some maps minus that to others'."""
    return [
        average([float(slow_region(one, place) @ slow_mean(m)) for m in same])
        - average([float(slow_region(one, place) @ slow_mean(m)) for m in other])
        for place in range(REGIONS)
    ]


def support_attention(maps: Array, own: list[int], of: int) -> list[float]:
    same = [m for j, m in enumerate(maps) if own[j] == own[of] and j != of] or [maps[of]]
    return slow_attention(maps[of], same, [m for j, m in enumerate(maps) if own[j] != own[of]])


def query_attention(query: Array, maps: Array, own: list[int], of: int) -> list[float]:
    same = [m for j, m in enumerate(maps) if own[j] == of]
    return slow_attention(query, same, [m for j, m in enumerate(maps) if own[j] != of])


def sums_and_counts(maps: Tensor, own: list[int]) -> tuple[Tensor, Tensor]:
    means, numbers = mean_features(maps), torch.tensor(own)
    classes = max(own) + 1
    sums = torch.stack([means[numbers == c].sum(0) for c in range(classes)])
    return sums, torch.bincount(numbers).float()


def attention_of_support(maps: Tensor, own: list[int]) -> Tensor:
    sums, counts = sums_and_counts(maps, own)
    return attention_values(region_features(maps), sums, counts, "difference", torch.tensor(own), mean_features(maps))[
        :, 0
    ]


def matcher(representation: Representation = "both", weighted: bool = True) -> RegionMatcher:
    return RegionMatcher(MatchingOptions(representation, "difference", weighted))


def test_the_attention_of_a_support_picture_leaves_itself_out() -> None:
    maps = some_maps(CLASSES * SHOTS)
    slow = [support_attention(maps.numpy(), OWN, i) for i in range(len(maps))]
    np.testing.assert_allclose(attention_of_support(maps, OWN).numpy(), slow, atol=1e-5)


def test_a_support_picture_alone_in_its_class_counts_itself() -> None:
    maps = some_maps(2)
    slow = [support_attention(maps.numpy(), [0, 1], i) for i in range(2)]
    np.testing.assert_allclose(attention_of_support(maps, [0, 1]).numpy(), slow, atol=1e-5)


def test_a_query_is_asked_for_every_class_as_if_it_belonged_to_it() -> None:
    maps, queries = some_maps(CLASSES * SHOTS), some_maps(QUERIES, 1)
    sums, counts = sums_and_counts(maps, OWN)
    found = attention_values(region_features(queries), sums, counts, "difference")
    slow = [[query_attention(q, maps.numpy(), OWN, c) for c in range(CLASSES)] for q in queries.numpy()]
    np.testing.assert_allclose(found.numpy(), slow, atol=1e-5)


def test_the_ratio_divides_the_two_similarities() -> None:
    maps, queries = some_maps(CLASSES * SHOTS), some_maps(1, 1)
    sums, counts = sums_and_counts(maps, OWN)
    found = attention_values(region_features(queries), sums, counts, "ratio")[0, 1, 2]
    region = slow_region(queries[0].numpy(), 2)
    near = [float(region @ slow_mean(m)) for m, own in zip(maps.numpy(), OWN, strict=True) if own == 1]
    far = [float(region @ slow_mean(m)) for m, own in zip(maps.numpy(), OWN, strict=True) if own != 1]
    assert float(found) == pytest.approx(average(near) / average(far), rel=1e-5)


def test_the_local_feature_is_the_region_of_the_largest_attention() -> None:
    regions = region_features(some_maps(2))
    attention = torch.tensor([[[0.0, 3.0, 0.0, 0.0, 1.0, 0.0]], [[0.0, 0.0, 0.0, 0.0, 0.0, 2.0]]])
    found = local_features(regions, attention)[:, 0]
    torch.testing.assert_close(found, torch.stack([regions[0, 1], regions[1, 5]]))


def test_attention_learns_through_the_regions_it_did_not_choose() -> None:
    attention = torch.zeros(1, 1, REGIONS, requires_grad=True)
    local_features(region_features(some_maps(1)), attention)[0, 0, 0].backward()  # type: ignore[no-untyped-call]
    assert attention.grad is not None
    assert float(attention.grad.abs().max()) > 0


@pytest.mark.parametrize("representation", ["global", "local", "both"])
def test_similarity_is_the_mean_cosine_to_the_plain_means_of_a_class(representation: Representation) -> None:
    maps, queries = some_maps(CLASSES * SHOTS), some_maps(QUERIES, 1)
    own = matcher(representation, weighted=False)
    with torch.no_grad():
        found = own(own.support(maps, torch.tensor(OWN), CLASSES), queries).similarity
    chosen = [
        slow_region(m, int(np.argmax(support_attention(maps.numpy(), OWN, i)))) for i, m in enumerate(maps.numpy())
    ]
    for q, query in enumerate(queries.numpy()):
        for c in range(CLASSES):
            of_class = [i for i, own_class in enumerate(OWN) if own_class == c]
            whole = unit(np.sum([unit(maps[i].numpy().ravel()) for i in of_class], 0)) @ unit(query.ravel())
            place = int(np.argmax(query_attention(query, maps.numpy(), OWN, c)))
            part = unit(np.sum([chosen[i] for i in of_class], 0)) @ slow_region(query, place)
            expected = {"global": whole, "local": part, "both": (whole + part) / 2}[representation]
            assert float(found[q, c]) == pytest.approx(float(expected), abs=1e-5)


def test_pictures_unlike_their_class_count_less_in_its_description() -> None:
    maps = some_maps(2).repeat_interleave(3, 0) + 0.01 * some_maps(6, 2)
    maps[2] = maps[5]  # of class 0, but looks like class 1
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    with torch.no_grad():
        weighted, plain = (matcher("global", w).support(maps, labels, 2).whole[0] for w in (True, False))
    good = functional.normalize(maps[:2].flatten(1), dim=-1).mean(0)
    assert float(weighted @ good) > float(plain @ good)


def test_with_one_picture_a_class_the_description_is_that_picture() -> None:
    maps = some_maps(3)
    with torch.no_grad():
        support = matcher().support(maps, torch.arange(3), 3)
    torch.testing.assert_close(support.whole, whole_maps(maps))


def test_one_class_alone_takes_every_query() -> None:
    own = matcher()
    with torch.no_grad():
        found = own(own.support(some_maps(2), torch.tensor([0, 0]), 1), some_maps(2, 1))
    assert found.similarity.shape == (2, 1)
    assert bool(found.similarity.isfinite().all())


def test_a_class_without_a_picture_is_refused_by_number() -> None:
    with pytest.raises(ValueError, match="class 1 has no picture"):
        matcher().support(some_maps(2), torch.tensor([0, 2]), 3)


@pytest.mark.parametrize(("field", "value"), [("representation", "half"), ("attention", "sum")])
def test_options_that_are_not_known_are_refused_with_those_that_are(field: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{value}' is not known; give"):
        MatchingOptions(**{field: value})  # type: ignore[arg-type]
