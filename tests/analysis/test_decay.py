"""How scans forget, against the operator itself: it is given one token at a time."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

import zoo
from tests.helpers.seen_through import Scanning, ThreeByThree
from zoo.analysis import scan_decays
from zoo.blocks import SumMerge
from zoo.errors import ZooError
from zoo.ops.scan import selective_scan
from zoo.scans import Compose, Raster, ScanOrder, Window

HEIGHT, WIDTH = 5, 6
MIDDLE = 2 * WIDTH + 3


def an_image():
    return torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(6))


@dataclass(frozen=True)
class FirstRows(ScanOrder):
    """Each direction reads its number of rows, and leaves the others out."""

    directions: tuple[str, ...] = ("three", "two")

    def build(self, height, width, device):
        path_S = torch.arange(3 * width, dtype=torch.int32, device=device)
        return torch.stack([path_S, torch.where(path_S < 2 * width, path_S, -1)])


@pytest.fixture
def seen(monkeypatch):
    """The inputs of the scans that run."""
    found, forward = [], SumMerge.forward

    def keep(self, inputs):
        found.append(inputs)
        return forward(self, inputs)

    monkeypatch.setattr(SumMerge, "forward", keep)
    return found


@pytest.mark.parametrize(
    "scan",
    [
        Raster(),
        Window(size=4, directions=("row", "column_reversed")),  # has zero tokens
        Compose(orders=(Raster(directions=("row",)), Window(size=4, directions=("row",)))),
        FirstRows(),  # one does not read the token in the middle
    ],
)
def test_maps_are_what_the_operator_does_with_one_token(scan, seen, monkeypatch):
    monkeypatch.setattr("zoo.analysis.decay._CHUNK", 7)  # the path is looked at in pieces
    [decay] = scan_decays(Scanning(scan), an_image())
    [inputs] = seen
    inputs = inputs._replace(
        **{name: value.double() for name, value in inputs._asdict().items() if name != "order"}
    )
    assert decay.place == "mixer" and decay.directions == scan.directions
    nothing = torch.zeros_like(inputs.D)
    states = inputs.A.shape[-1]
    step_LKE = F.softplus(
        torch.einsum("lkr,ker->lke", inputs.delta[0], inputs.delta_weight) + inputs.delta_bias
    )
    for token in range(HEIGHT * WIDTH):
        alone = torch.zeros_like(inputs.u)
        alone[0, token] = 1
        y_LKE = selective_scan(*inputs._replace(u=alone, D=nothing), backend="reference")[0]
        weight_K = y_LKE[MIDDLE].abs().mean(1)
        torch.testing.assert_close(
            decay.weight_KHW[:, token // WIDTH, token % WIDTH], weight_K, rtol=1e-6, atol=1e-12
        )
        for k in range(len(scan.directions)):
            # With B = 1, C = 1 / N and an input of 1 / step, the output is the mean decay.
            alone[0, token] = 1 / step_LKE[token, k]
            flat = inputs._replace(
                u=alone,
                D=nothing,
                B=torch.ones_like(inputs.B),
                C=torch.full_like(inputs.C, 1 / states),
            )
            y_LKE = selective_scan(*flat, backend="reference")[0]
            kept = decay.kept_KHW[k, token // WIDTH, token % WIDTH]
            torch.testing.assert_close(kept, y_LKE[MIDDLE, k].mean(), rtol=1e-6, atol=1e-12)


def test_the_mean_over_the_path_is_that_of_all_pairs_of_steps(seen):
    scan = Window(size=4, directions=("row",))
    [decay] = scan_decays(Scanning(scan), an_image())
    [inputs] = seen
    path = scan.order(HEIGHT, WIDTH)[0].long()
    assert -1 in path
    delta_SR = torch.where(path[:, None] >= 0, inputs.delta[0, path.clamp(min=0), 0], 0.0).double()
    step_SE = F.softplus(delta_SR @ inputs.delta_weight[0].double().T + inputs.delta_bias[0])
    assert decay.distance_D.tolist()[:20] == list(range(1, 21)) and len(path) == 64
    for index, distance in enumerate(decay.distance_D.tolist()):
        kept = [
            torch.exp(step_SE[s - distance + 1 : s + 1].sum(0)[:, None] * inputs.A[0].double())
            for s in range(distance, 64)
        ]
        expected = torch.stack(kept).mean()
        torch.testing.assert_close(decay.kept_KD[0, index], expected, rtol=1e-6, atol=0)
    assert decay.distance_D[-1] < 64


def test_half_of_the_state_is_gone_after_a_known_distance():
    """A = -1, and steps of log(2) / 5.2 and log(4) / 4.1: half is left after 5.2 and 2.05."""
    network = Scanning(Raster(directions=("row", "row_reversed")), d_state=1)
    with torch.no_grad():
        network.mixer.dt_proj_weight.zero_()
        step = torch.tensor([2.0, 4.0]).log()[:, None] / torch.tensor([5.2, 4.1])[:, None]
        network.mixer.dt_proj_bias.copy_(torch.log(torch.expm1(step)))
        network.mixer.A_log.zero_()
    [decay] = scan_decays(network, an_image())
    assert [decay.half_life(k) for k in (0, 1)] == [6, 3]
    torch.testing.assert_close(decay.kept_KD[0, :3], 2 ** (-torch.arange(1, 4).double() / 5.2))
    with torch.no_grad():
        network.mixer.dt_proj_bias.fill_(-20.0)
    assert scan_decays(network, an_image())[0].half_life(0) is None


@pytest.mark.parametrize(
    ("name", "places"),
    [("mambair_tiny_x2", 4), ("mambacsr_tiny_x2", 7), ("mambairv2_tiny_x2", 4), ("dvmsr_x4", None)],
)
def test_scans_of_published_networks_are_found(name, places):
    torch.manual_seed(0)
    network = zoo.build(name, **({"depths": [1]} if name == "dvmsr_x4" else {}))
    found = scan_decays(network, torch.rand(3, 16, 16))
    assert places is None or len(found) == places
    for decay in found:
        assert decay.kept_KD.shape == (len(decay.directions), len(decay.distance_D))
        assert (decay.kept_KD.diff(dim=1) <= 1e-12).all()  # nothing comes back
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_two_grids_have_curves_but_no_maps():
    found = scan_decays(zoo.build("mambacsr_tiny_x2"), torch.rand(3, 16, 16))
    [fusion] = [decay for decay in found if decay.kept_KHW is None]
    assert "fusion" in fusion.place and fusion.kept_KD.isfinite().all()


def test_a_network_without_scans_is_refused():
    with pytest.raises(ZooError, match="no selective scan"):
        scan_decays(ThreeByThree(), an_image())
