"""Evaluation mode while a network is used, by one thread or several."""

from __future__ import annotations

import threading

import pytest
from torch import nn

from zoo.inference.evaluation_mode import evaluating


@pytest.mark.parametrize("trained", [True, False])
def test_the_mode_is_that_of_before(trained):
    network = nn.Sequential(nn.Dropout(0.5)).train(trained)
    with pytest.raises(KeyError), evaluating(network):
        assert not network.training and not network[0].training
        with evaluating(network):
            assert not network.training
        assert not network.training
        raise KeyError
    assert network.training == network[0].training == trained


def test_the_last_of_several_threads_restores_the_mode():
    network, other = nn.Linear(1, 1).train(), nn.Linear(1, 1).train()
    entered, leave = threading.Event(), threading.Event()

    def use():
        with evaluating(network):
            entered.set()
            leave.wait(20)

    thread = threading.Thread(target=use)
    with evaluating(network):
        thread.start()
        assert entered.wait(20)
    assert not network.training and other.training  # the thread still uses it
    leave.set()
    thread.join()
    assert network.training


def test_modules_that_did_not_train_do_not_train_afterwards():
    frozen, free = nn.Dropout(0.5).eval(), nn.Dropout(0.5)
    network = nn.Sequential(frozen, nn.Sequential(free)).train()
    frozen.eval()
    with evaluating(network):
        assert not free.training
    assert network.training and network[1].training and free.training and not frozen.training
