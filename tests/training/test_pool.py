"""The pool of pairs: what it gives for what is made, on any number of ranks, from any step."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from tests.helpers.training import Rank
from zoo.distributed import ProcessGroup
from zoo.errors import RecipeError
from zoo.training.loader import PairPool, batches
from zoo.training.settings import DataSettings, Stage


class Numbers(torch.utils.data.Dataset):
    """The number of each example."""

    def __len__(self):
        return 10_000

    def __getitem__(self, index):
        return (torch.tensor(index),)


def stage(iterations, batch):
    return Stage(iterations=iterations, patch=1, batch=batch)


def drawn(plan, *, step=0, accumulate=1, group=None, pool=12, seed=0):
    """Numbers of the examples of each step."""
    found = batches(
        lambda stage: Numbers(),
        plan,
        step=step,
        accumulate=accumulate,
        group=group or ProcessGroup(),
        num_workers=0,
        pool=pool,
        seed=seed,
    )
    return [[part.tolist() for (part,) in parts] for parts in found]


def flat(steps):
    return [[number for part in parts for number in part] for parts in steps]


def test_batches_are_used_as_they_come_until_the_pool_is_full():
    pool = PairPool(10, [0])
    assert [pool.exchange([n, n + 1, n + 2]) for n in (0, 3, 6)] == [
        [0, 1, 2],
        [3, 4, 5],
        [6, 7, 8],
    ]
    found = pool.exchange([9, 10, 11])
    assert len(set(found)) == 3 and set(found) <= set(range(9))
    assert PairPool(0, [0]).exchange([4, 5]) == [4, 5]


def test_every_pair_leaves_the_pool_once_and_may_have_been_used_as_it_came():
    steps, size = 400, 12
    found = flat(drawn([stage(steps, 4)]))
    assert found[:3] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    uses = Counter(number for batch in found for number in batch)
    assert all(uses[number] == (1 if number >= size else uses[number]) for number in uses)
    assert sum(number < size and uses[number] == 2 for number in range(size)) >= 9
    later = [number for batch in found[3:] for number in batch]
    assert len(later) == len(set(later))  # each leaves once
    left = set(range(4 * steps)) - set(later)
    assert len(left) == size  # the pool at the end
    waited = [
        step - number // 4 for step, batch in enumerate(found) for number in batch if step > 2
    ]
    assert min(waited) == 1  # a pair that is made now is kept
    # A third of the pool leaves at each step, so a pair waits for three steps on average.
    assert 2.7 < sum(waited) / len(waited) < 3.3


def test_ranks_and_micro_batches_share_what_the_pool_gives():
    plan = [stage(20, 8)]
    whole = flat(drawn(plan))
    for world_size, accumulate in ((2, 1), (1, 4), (2, 2)):
        ranks = [
            drawn(plan, group=Rank(rank, world_size), accumulate=accumulate)
            for rank in range(world_size)
        ]
        for step, batch in enumerate(whole):
            parts = [ranks[r][step][part] for part in range(accumulate) for r in range(world_size)]
            assert [number for part in parts for number in part] == batch


@pytest.mark.parametrize("step", [1, 3, 7, 12, 19])
def test_a_resumed_training_draws_the_same(step):
    plan = [stage(10, 4), stage(10, 6)]
    assert drawn(plan, step=step) == drawn(plan)[step:]


def test_each_stage_has_a_pool_of_its_own_and_each_seed_other_draws():
    plan = [stage(10, 4), stage(10, 6)]
    found = flat(drawn(plan))
    assert all(number >= 40 for batch in found[10:] for number in batch)
    assert found[10] == list(range(40, 46))
    assert drawn(plan, seed=1) != drawn(plan) == drawn(plan, seed=0)
    assert flat(drawn(plan, pool=0))[9:11] == [[36, 37, 38, 39], list(range(40, 46))]


def test_a_pool_that_is_smaller_than_the_batch_is_refused():
    DataSettings(pool=16)
    for settings in ({"pool": 15}, {"pool": 3, "batch": 4}):
        with pytest.raises(RecipeError, match=r"it must be 0 or at least .* the batch"):
            DataSettings(**settings)
    with pytest.raises(RecipeError, match="at least 6, the batch"):
        DataSettings(pool=5, stages=(stage(1, 4), stage(1, 6)))
    with pytest.raises(RecipeError, match="pool is -1"):
        DataSettings(pool=-1)
