"""The order by class: a stable sort, computed in two ways, for each image of a batch."""

from __future__ import annotations

import pytest
import torch

from zoo.blocks import SS2D, Mamba1D
from zoo.errors import RecipeError
from zoo.scans import ByClass, Compose
from zoo.scans.by_class import _counting_sort, sort_by_class


def sorted_by_python(classes):
    return sorted(range(len(classes)), key=lambda token: (classes[token], token))


@pytest.mark.parametrize("sort", [sort_by_class, _counting_sort])
@pytest.mark.parametrize(("tokens", "classes"), [(1, 1), (7, 3), (60, 5), (300, 128), (64, 1)])
def test_both_sorts_are_stable_and_return_the_inverse(sort, tokens, classes):
    class_BL = torch.randint(classes, (3, tokens))
    order_BL, rank_BL = sort(class_BL, classes)
    assert order_BL.dtype == torch.int32 and rank_BL.dtype == torch.int64
    for chosen, order, rank in zip(
        class_BL.tolist(), order_BL.tolist(), rank_BL.tolist(), strict=True
    ):
        assert order == sorted_by_python(chosen)
        assert [rank[token] for token in order] == list(range(tokens))


def test_a_class_without_tokens_takes_no_place():
    order_BL, _ = sort_by_class(torch.tensor([[9, 0, 9, 4]]), 10)
    assert order_BL.tolist() == [[1, 3, 0, 2]]


def test_a_reversed_direction_is_the_exact_reverse():
    class_BL = torch.randint(4, (2, 30))
    order_BKS, rank_BKL = ByClass(directions=("class_reversed", "class")).of_classes(class_BL, 4)
    assert torch.equal(order_BKS[:, 0], order_BKS[:, 1].flip(1))
    steps = torch.arange(30).expand(2, 2, 30)
    assert torch.equal(rank_BKL.gather(2, order_BKS.long()), steps)


def test_it_can_be_compiled_with_any_number_of_tokens():
    compiled = torch.compile(
        lambda c: sort_by_class(c, 5), backend="eager", fullgraph=True, dynamic=True
    )
    for tokens in (6, 11):
        class_BL = torch.randint(5, (2, tokens))
        for found, expected in zip(compiled(class_BL), sort_by_class(class_BL, 5), strict=True):
            assert torch.equal(found, expected)


def test_what_cannot_use_it_says_so():
    with pytest.raises(RecipeError, match="depends on the image"):
        ByClass().order(4, 4)
    with pytest.raises(RecipeError, match=r"orders\[1\] is ByClass.*depends on the image"):
        from zoo.scans import Raster

        Compose(orders=(Raster(), ByClass()))
    with pytest.raises(ValueError, match="SS2D cannot scan by; use the mixer 'attentive'"):
        SS2D(8, scan=ByClass())
    with pytest.raises(RecipeError, match="unknown direction 'row'"):
        ByClass(directions=("row",))
    assert Mamba1D(8, scan=ByClass()).scan.directions == ("row",)  # it ignores the order
