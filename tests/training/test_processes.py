"""Processes without processes: what one of them asks of PyTorch, and what it makes of answers."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch

import zoo.distributed as distributed
from zoo.distributed import ProcessGroup, map_shared, process_group, shard
from zoo.errors import ImageError, ToldElsewhereError, ZooError


class Store:
    """A counter for each key, as the store of torchrun has."""

    def __init__(self):
        self.counts = {}

    def add(self, key, amount):
        self.counts[key] = self.counts.get(key, 0) + amount
        return self.counts[key]


@pytest.fixture
def group_of(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return lambda rank, world_size, store=None: distributed._TorchrunGroup(
        store or Store(), rank, world_size
    )


class Meeting(ProcessGroup):
    """A process whose partner did some numbers before it."""

    world_size = 2

    def __init__(self, elsewhere):
        self.elsewhere = elsewhere

    def shared_indices(self, count, task):
        yield from (number for number in range(count) if number not in self.elsewhere)

    def gather(self, value):
        return [self.elsewhere, value]


def test_mapped_results_come_in_order_and_each_number_is_done_once():
    done = []

    def work(number):
        done.append(number)
        return number * 10

    group = Meeting({4: 40, 1: 10})
    assert map_shared(group, 6, work, task="a", unit="x", progress=False) == [0, 10, 20, 30, 40, 50]
    assert done == [0, 2, 3, 5]
    alone = map_shared(ProcessGroup(), 3, work, task="a", unit="x", progress=False)
    assert alone == [0, 10, 20]


def test_numbers_are_handed_out_once_per_task(group_of):
    store = Store()
    first, second = group_of(0, 2, store), group_of(1, 2, store)
    found = {0: [], 1: []}
    streams = {0: first.shared_indices(5, "a"), 1: second.shared_indices(5, "a")}
    for turn in (0, 1, 1, 0, 1):
        found[turn].append(next(streams[turn]))
    assert found == {0: [0, 3], 1: [1, 2, 4]}
    assert all(next(stream, None) is None for stream in streams.values())
    assert list(first.shared_indices(2, "b")) == [0, 1]  # another task has numbers of its own


def test_progress_is_shown_unless_asked_otherwise_by_the_first_process(group_of, monkeypatch):
    shown = []

    class Bar(distributed.tqdm):
        def __init__(self, **settings):
            shown.append(settings.pop("disable"))
            super().__init__(**settings, disable=True)

    monkeypatch.setattr(distributed, "tqdm", Bar)
    options = {"task": "t", "unit": "x"}
    map_shared(ProcessGroup(), 1, str, **options)
    map_shared(ProcessGroup(), 1, str, **options, progress=False)
    second = group_of(1, 2)
    monkeypatch.setattr(second, "gather", lambda value: [value], raising=False)
    assert map_shared(second, 1, str, **options) == ["0"]
    assert shown == [None, True, True]


def test_a_fixed_share_is_every_nth_item(group_of):
    shares = [shard("abcdefg", group_of(rank, 3)) for rank in range(3)]
    assert shares == [list("adg"), list("be"), list("cf")]


def test_each_process_of_a_machine_has_its_own_gpu(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    # There are no other processes to agree with.
    monkeypatch.setattr(distributed._TorchrunGroup, "_agree_on_backend", lambda group, device: None)
    group = distributed._TorchrunGroup(Store(), 5, 8)
    assert group.device("cuda") == "cuda:1" and chosen == [1]
    assert group.device("cpu") == "cpu" and chosen == [1]
    for one in (group, ProcessGroup()):
        assert one.device("cuda:0") == "cuda:0" and chosen.pop() == "cuda:0"
    assert ProcessGroup().device("cuda") == "cuda" and chosen == [1]  # the current one
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ZooError, match="no GPU for process 2 of this machine, which has 2"):
        distributed._TorchrunGroup(Store(), 6, 8).device("cuda")


def test_what_the_first_process_finds_or_fails_at_reaches_all(group_of, monkeypatch):
    sent = []

    def broadcast(box):
        sent.append(box[0])
        box[0] = "from the first"

    monkeypatch.setattr(distributed.dist, "broadcast_object_list", broadcast)
    assert group_of(0, 2).from_first(lambda: "mine") == "from the first" and sent == ["mine"]
    never = group_of(1, 2).from_first(lambda: pytest.fail("called in another process"))
    assert never == "from the first" and sent[1] is None
    error = ZooError("no such file")
    monkeypatch.setattr(
        distributed.dist, "broadcast_object_list", lambda box: box.__setitem__(0, error)
    )
    with pytest.raises(ToldElsewhereError, match="no such file"):
        group_of(1, 2).from_first(lambda: None)
    monkeypatch.setattr(distributed.dist, "broadcast_object_list", lambda box: None)

    def fail():
        raise error

    with pytest.raises(ZooError) as raised:
        group_of(0, 2).from_first(fail)
    assert raised.value is error


def test_what_fails_in_one_process_fails_in_all_and_is_told_by_the_first_that_failed(
    group_of, monkeypatch
):
    def fail():
        raise ImageError("no such photo")

    def meet(rank, function, messages):
        group = group_of(rank, 3)
        monkeypatch.setattr(group, "gather", lambda own: [*messages[:rank], own, *messages[rank:]])
        return group.together(function)

    assert meet(1, lambda: "mine", [None, None]) == "mine"
    with pytest.raises(ImageError, match=r"^no such photo$"):
        meet(1, fail, [None, "no such folder"])
    with pytest.raises(ToldElsewhereError, match=r"^no such folder$"):
        meet(1, fail, ["no such folder", None])
    with pytest.raises(ToldElsewhereError, match=r"^no such folder$"):
        meet(0, lambda: "mine", [None, "no such folder"])
    with pytest.raises(ToldElsewhereError, match=r"^$"):  # an error may say nothing
        meet(0, lambda: "mine", ["", None])
    alone = ProcessGroup()
    assert alone.together(lambda: 3) == 3
    with pytest.raises(ImageError):
        alone.together(fail)


def test_gradients_of_a_module_that_is_not_wrapped_are_averaged(group_of, monkeypatch):
    """Two processes, of which the other has gradients of 10; a frozen parameter has none."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    module[1].bias.requires_grad_(False)
    module(torch.rand(4, 2)).sum().backward()
    mine = [None if p.grad is None else p.grad.clone() for p in module.parameters()]
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda tensor: tensor.add_(10))
    group_of(0, 2).average_gradients(module)
    for parameter, before in zip(module.parameters(), mine, strict=True):
        if before is None:
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, (before + 10) / 2)
    before = [p.grad.clone() for p in module.parameters() if p.grad is not None]
    ProcessGroup().average_gradients(module)  # alone, nothing changes
    assert all(map(torch.equal, before, [p.grad for p in module.parameters() if p.requires_grad]))


@pytest.mark.parametrize(
    ("environment", "joins"),
    [
        ({}, False),
        ({"WORLD_SIZE": "1", "RANK": "0"}, False),
        ({"WORLD_SIZE": "2"}, False),  # set by a scheduler: torchrun also gives a rank
        ({"WORLD_SIZE": "2", "RANK": "1"}, True),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_processes_are_joined_where_torchrun_started_several(
    environment, joins, device, monkeypatch
):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    calls = []
    monkeypatch.setattr(
        distributed.dist, "rendezvous", lambda url, timeout: iter([(Store(), 1, 2)])
    )
    monkeypatch.setattr(
        distributed.dist, "init_process_group", lambda engine, **rest: calls.append(engine)
    )
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: calls.append("end"))
    with process_group(device) as group:
        assert (group.rank, group.world_size) == ((1, 2) if joins else (0, 1))
        assert group.is_first is not joins
    engine = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    assert calls == ([engine, "end"] if joins else [])


def test_processes_wait_for_each_other_for_hours(monkeypatch):
    """A slow one may read, check or restore for long; if it dies, torchrun ends all."""
    asked = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(
        distributed.dist, "rendezvous",
        lambda url, timeout: asked.append((url, timeout)) or iter([(Store(), 0, 2)]),
    )  # fmt: skip
    monkeypatch.setattr(
        distributed.dist, "init_process_group", lambda engine, **rest: asked.append(rest)
    )
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: None)
    with process_group() as group:
        rest = {"store": group._store, "rank": 0, "world_size": 2, "timeout": timedelta(hours=6)}
        assert asked == [("env://", timedelta(hours=6)), rest]
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ZooError, match="PyTorch finds no GPU"), process_group("cuda"):
        pytest.fail("they were joined")


def test_gradients_are_not_sent_where_there_are_none(group_of, monkeypatch):
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda tensor: pytest.fail("it was sent"))
    group_of(0, 2).average_gradients(torch.nn.Linear(2, 3))


def test_sums_over_processes_are_exact(group_of, monkeypatch):
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda tensor: tensor.add_(1))
    assert group_of(0, 2).add(2.0**40, 0.1) == [2.0**40 + 1, 1.1]


@pytest.mark.parametrize(("device", "devices"), [("cpu", None), ("cuda:1", ["cuda:1"])])
def test_a_wrapped_network_is_on_the_gpu_of_its_process(group_of, monkeypatch, device, devices):
    wrapped = []
    monkeypatch.setattr(
        distributed,
        "DistributedDataParallel",
        lambda network, device_ids: wrapped.append((network, device_ids)) or "wrapped",
    )
    network = torch.nn.Linear(2, 3)
    assert group_of(1, 2).wrap(network, device) == "wrapped"
    assert wrapped == [(network, devices and [torch.device(each) for each in devices])]
    assert ProcessGroup().wrap(network, device) is network
