"""Burst networks: every recipe and part, any size and length, training, saving, registration."""

from __future__ import annotations

import json

import pytest
import torch

import zoo
from tests.helpers.fingerprints import SEED, check_fingerprint
from zoo.blocks import ALIGNERS, BURST_FUSIONS
from zoo.data import Photo, write_photo
from zoo.data.burst import BurstSample
from zoo.data.pixels import to_array
from zoo.distributed import ProcessGroup
from zoo.errors import RecipeError
from zoo.evaluation.burst import mean_burst_score, score_burst
from zoo.heads import UPSAMPLERS
from zoo.networks import Network
from zoo.networks.phase import PhaseSkip, enlarge_frame
from zoo.ops.deformable import warp
from zoo.recipe import load_recipe
from zoo.registry import capabilities_of
from zoo.training.burst_task import BurstTask
from zoo.training.settings import BurstTrainSettings, train_settings

MODELS = [n for n in zoo.list_models() if load_recipe(n).takes_burst]
# Parameters in the design's table, in millions; S has one channel transformer less in its only
# refinement than the design counts (0.93).
PRESETS = {"qmambabsr": 2.63, "qmambabsr_l": 4.40, "qmambabsr_rgb": 2.61, "qmambabsr_s": 0.93}
NARROW = {
    "dim": 8, "burst": 3, "align.groups": 2, "fusion.d_state": 2, "stages": [1],
    "body.heads": 2,
}  # fmt: skip


def tiny(**changes):
    network = {"type": "burst", "dim": 8, "burst": 3, "stages": [1], "scale": 2,
               "align": {"groups": 2, "blocks": 1, "refine": "none"},
               "body": {"heads": 2}, "fusion": {"d_state": 2}, **changes}  # fmt: skip
    return {"network": network}


VARIANTS = {
    **{f"align-{n}": tiny(align=n if n in ("none", "warp") else {"type": n, "groups": 2},
                          flow_prior="registration") for n in ALIGNERS.names()},
    **{f"fusion-{n}": tiny(fusion=n) for n in BURST_FUSIONS.names()},
    **{f"up-{n}": tiny(head={"type": "doubling", "up": n}, scale=4) for n in UPSAMPLERS.names()},
    "rgb": tiny(channels=3, skip="corner"),
    "centre": tiny(skip="centre"),
    "merged": tiny(skip="merged", flow_prior="registration"),
    "any-length": tiny(fusion={"frame_mix": "mean_max", "denoise": "mean_max"}),
    "another-body": tiny(body="rssb", dim=30, align="none",
                         scans=[{"type": "window", "size": 4}, "raster"], stages=[2, 1]),
    "another-head": tiny(head="pixelshuffle_direct"),
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_any_size_trains_and_comes_back_from_a_file(name, tmp_path):
    torch.manual_seed(SEED)
    network = zoo.build(VARIANTS[name])
    scale, channels = network.scale, network.channels
    with torch.no_grad():
        for height, width in ((1, 1), (9, 6)):
            burst = torch.rand(1, 3, channels, height, width)
            assert network.eval()(burst).shape == (1, 3, scale * height, scale * width)
    bursts = torch.rand(2, 3, channels, 8, 5)
    network.train()(bursts).square().mean().backward()
    assert not [key for key, p in network.named_parameters() if p.grad is None]
    zoo.save(network, tmp_path / "w.safetensors")
    again = zoo.load(tmp_path / "w.safetensors")
    with torch.no_grad():
        found = again(bursts)
        assert torch.equal(found, network.eval()(bursts))
        apart = torch.cat([again(burst[None]) for burst in bursts])
    torch.testing.assert_close(apart, found, atol=1e-5, rtol=1e-5)
    check_fingerprint(f"burst-{name}", network)


@pytest.mark.parametrize("name", MODELS)
def test_every_recipe_trains_a_step_when_narrowed(name, tmp_path):
    network_data = load_recipe(name).network
    changes = {f"network.{key}": value for key, value in NARROW.items()}
    if network_data["fusion"]["type"] != "qssm":
        del changes["network.fusion.d_state"]
    if network_data["body"]["type"] != "msfm":
        del changes["network.body.heads"]
    data = {"patch": 4, "batch": 2, "validate_patch": 4, "validate_bursts": 1, "border": 0}
    changes |= {f"train.data.{key}": value for key, value in data.items()}
    if load_recipe(name).train["data"]["synthesis"] is None:  # real bursts are files
        changes |= {"train.data.synthesis": "ntire", "train.align_loss": False}
        changes["train.initial"] = None
    recipe = load_recipe(name, {**changes, "train.iterations": 2})
    settings = train_settings(recipe)
    assert isinstance(settings, BurstTrainSettings)
    network = zoo.build(recipe).train()
    side = 4 * network.scale
    task = burst_task_of(settings, network, tmp_path)
    examples = task.examples(task.plan[0])
    batch = [torch.stack(column) for column in zip(*(examples[i] for i in range(2)), strict=True)]
    assert batch[1].shape == (2, 3, side, side)
    value = task.loss(task.module(network), settings.loss, batch, 0.0)
    value.backward()
    assert value.isfinite()
    assert not [key for key, p in network.named_parameters() if p.grad is None]
    assert {"psnr", "baseline", "all_reference"} <= set(task.validate(network, ProcessGroup())[0])


def burst_task_of(settings, network, folder):
    import dataclasses

    photo(folder / "photo.png")
    data = dataclasses.replace(settings.data, photos=str(folder), validate=str(folder))
    return BurstTask(dataclasses.replace(settings, data=data), network)


def photo(path, side=80):
    coarse = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.interpolate(coarse, size=(side, side + 5), mode="bicubic")
    write_photo(path, Photo(to_array(image.clamp(0, 1)[0])))


@pytest.mark.parametrize(("name", "millions"), PRESETS.items())
def test_presets_have_the_size_of_the_design(name, millions):
    network = zoo.build(name)
    parameters = sum(p.numel() for p in network.parameters())
    assert parameters / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize(("prior", "takes", "needs"), [
    ("none", False, False), ("registration", True, False), ("given", True, True),
])  # fmt: skip
def test_a_network_tells_what_it_takes(prior, takes, needs):
    network = zoo.build(tiny(flow_prior=prior, align="none"))
    assert network.takes_burst and network.recipe.takes_burst and network.burst == 3
    assert (network.channels, network.out_channels) == (4, 3)
    assert (network.takes_flow, network.needs_flow) == (takes, needs)
    assert capabilities_of(network).size_multiple == 1
    assert capabilities_of(zoo.build(tiny())).size_multiple == 4
    photo = zoo.build("mambair_tiny_x2", channels=1)
    assert not (photo.takes_burst or photo.recipe.takes_burst or photo.takes_flow)
    assert (photo.channels, photo.out_channels, photo.burst) == (1, 1, 1)


def test_a_network_that_finds_no_displacements_returns_none():
    class Mean(Network):
        def forward(self, burst_BTIHW, flow_BT2HW=None):
            return burst_BTIHW.mean(1)

    burst = torch.rand(1, 3, 4, 2, 2)
    image, found = Mean().forward_with_displacements(burst)
    assert found == () and torch.equal(image, burst.mean(1))


def test_the_head_gets_the_reference_frame():
    network, seen = zoo.build(tiny()).eval(), []
    network.head.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    burst = torch.rand(1, 3, network.channels, 8, 8)
    with torch.no_grad():
        network(burst)
    assert torch.equal(seen[0], burst[:, 0].permute(0, 2, 3, 1))


def test_permuting_frames_leaves_mean_max_unchanged():
    network = zoo.build(VARIANTS["any-length"]).eval()
    burst = torch.rand(1, 6, 4, 8, 8)
    order = torch.tensor([0, 4, 2, 5, 1, 3])
    with torch.no_grad():
        expected = network(burst)
        torch.testing.assert_close(network(burst[:, order]), expected, atol=1e-5, rtol=1e-5)
        assert network(burst[:, :2]).shape == network(burst[:, :1]).shape == expected.shape


@pytest.mark.parametrize("fusion", ["qssm", "concat", "pbff"])
def test_other_lengths_are_adapted_or_refused(fusion):
    network = zoo.build(tiny(align="none", fusion=fusion)).eval()
    burst = torch.rand(1, 5, 4, 4, 4)
    with torch.no_grad():
        found = network(burst)
        assert torch.equal(found, network(burst[:, [0, 2, 4]]))
        assert torch.equal(network(burst[:, :2]), network(burst[:, [0, 1, 0]]))
    strict = zoo.build(tiny(align="none", fusion=fusion, other_lengths="error"))
    with pytest.raises(ValueError, match=r"has 5 frames, but the fusion is built for 3"):
        strict(burst)


def test_a_flow_is_given_estimated_or_not_used():
    burst, flow = torch.rand(1, 3, 4, 8, 8), torch.rand(1, 3, 2, 8, 8)
    torch.manual_seed(1)
    given = zoo.build(tiny(align="warp", flow_prior="given")).eval()
    with torch.no_grad():
        assert not torch.equal(given(burst, flow), given(burst, torch.zeros_like(flow)))
        with pytest.raises(ValueError, match="no flow was passed"):
            given(burst)
        with pytest.raises(ValueError, match="flow has shape"):
            given(burst, flow[:, :2])
        plain = zoo.build(tiny()).eval()
        assert torch.equal(plain(burst, flow), plain(burst))


def test_a_burst_goes_through_stages_around_which_the_reference_skips():
    """QMambaBSR, Sec. 3.1: each stage fuses the aligned frames into what the one before left."""
    changes = {"flow_prior": "given", "align": "warp", "stages": [1, 2], "skip": "corner"}
    network = zoo.build(tiny(**changes, body="rssb", dim=30, scans=["raster", "serpentine"]))
    burst, flow = torch.rand(2, 3, 4, 5, 6), 2 * torch.randn(2, 3, 2, 5, 6)
    with torch.no_grad():
        frames = [network.shallow(burst[:, t].permute(0, 2, 3, 1)) for t in range(3)]
        moved = [
            warp(frame.permute(0, 3, 1, 2), flow[:, t]).permute(0, 2, 3, 1)
            for t, frame in enumerate(frames)
        ]
        x, others = frames[0], torch.stack(moved[1:], 1)
        for fusion, body in zip(network.fusions, network.bodies, strict=True):
            x = body(fusion(x, others))
        expected = network.head(x + frames[0], None).permute(0, 3, 1, 2)
        expected = expected + enlarge_frame(burst[:, 0], 2, "corner")
        torch.testing.assert_close(network.train()(burst, flow), expected, atol=1e-5, rtol=1e-5)
    orders = [type(b.mixer.scan).__name__ for body in network.bodies for b in body]
    assert orders == ["Raster", "Serpentine", "Raster"]  # in turn over all stages


def test_frames_and_flow_are_padded_to_the_grid_by_their_last_row_and_column():
    network = zoo.build(tiny(flow_prior="given", skip="merged")).eval()
    for alignment in network.align.alignments:
        torch.nn.init.normal_(alignment.offset.weight, std=0.1)
    burst, flow = torch.rand(1, 3, 4, 5, 6), torch.randn(1, 3, 2, 5, 6)
    padded, padded_flow = (
        torch.nn.functional.pad(t[0], (0, 2, 0, 3), mode="replicate")[None] for t in (burst, flow)
    )
    with torch.no_grad():
        whole = network(padded, padded_flow)
        torch.testing.assert_close(network(burst, flow), whole[..., :10, :12])


def test_a_flow_goes_with_the_frames_that_are_chosen_or_repeated():
    network = zoo.build(tiny(align="warp", flow_prior="given")).eval()
    burst, flow = torch.rand(1, 5, 4, 4, 4), torch.randn(1, 5, 2, 4, 4)
    with torch.no_grad():
        for count, chosen in ((5, [0, 2, 4]), (4, [0, 2, 3]), (2, [0, 1, 0])):
            found = network(burst[:, :count], flow[:, :count])
            assert torch.equal(found, network(burst[:, chosen], flow[:, chosen]))


def test_the_estimated_flow_is_that_of_the_registration(monkeypatch):
    flow = torch.randn(1, 3, 2, 4, 4)
    monkeypatch.setattr("zoo.networks.burst.register_burst", lambda burst: flow)
    network = zoo.build(tiny(align="warp", flow_prior="registration")).eval()
    burst = torch.rand(1, 3, 4, 4, 4)
    with torch.no_grad():
        assert torch.equal(network(burst), network(burst, flow))


def test_training_output_is_not_clipped_and_evaluation_is_at_both_ends():
    network = zoo.build(tiny(align="none"))
    with torch.no_grad():
        network.head.last.bias.copy_(torch.tensor([5.0, 0.5, -5.0]))
        burst = torch.rand(1, 3, 4, 4, 4)
        whole = network.train()(burst)
        assert whole.max() > 1 and whole.min() < 0
        assert torch.equal(network.eval()(burst), whole.clamp(0, 1))


@pytest.mark.parametrize("registration", ["corner", "centre"])
@pytest.mark.parametrize(("channels", "scale"), [(4, 8), (4, 4), (3, 4), (3, 2)])
def test_a_ramp_is_enlarged_to_the_same_ramp_in_every_colour(channels, scale, registration):
    """Pixel i of a RAW plane is sensor pixel 2 i or 2 i + 1; both greens are averaged."""
    starts = [(0, 0), (0, 1), (1, 0), (1, 1)] if channels == 4 else [(0, 0)] * 3
    cell = 2 if channels == 4 else 1
    pitch = scale / cell
    shift = 0 if registration == "corner" else (pitch - 1) / 2
    rows, columns = torch.arange(9.0)[:, None], torch.arange(10.0)[None]
    # Output pixel on which pixel i of a plane lies; the scene is a ramp over those.
    frame = torch.stack([
        (cell * rows + down) * pitch + shift + 3 * ((cell * columns + right) * pitch + shift)
        for down, right in starts
    ])[None]  # fmt: skip
    found = enlarge_frame(frame, scale, registration)[0]
    scene = torch.arange(9.0 * scale)[:, None] + 3 * torch.arange(10.0 * scale)
    inside = slice(2 * scale, -2 * scale)
    torch.testing.assert_close(
        found[:, inside, inside], scene[inside, inside].expand(3, -1, -1), atol=1e-3, rtol=1e-4
    )
    flat = enlarge_frame(torch.full((1, channels, 3, 3), 0.3), scale, registration)
    torch.testing.assert_close(flat, torch.full_like(flat, 0.3))  # up to the border
    if channels == 4:
        colours = torch.tensor([1.0, 2.0, 4.0, 8.0]).view(1, 4, 1, 1).expand(1, 4, 3, 3)
        means = enlarge_frame(colours, scale, registration).mean((0, 2, 3))
        assert means.tolist() == pytest.approx([1, 3, 8])


def test_the_skip_learns_its_taps_from_where_the_phase_says():
    skip = PhaseSkip(4, scale=4, registration="corner")
    burst = torch.rand(2, 3, 4, 4, 5)
    torch.testing.assert_close(skip(burst), enlarge_frame(burst[:, 0], 4, "corner"))
    skip(burst).sum().backward()
    assert skip.weight.grad.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 1}, "4 RAW planes or 3 RGB"),
        ({"burst": 1}, "burst is 1; a burst has at least 2 frames"),
        ({"stages": []}, r"stages is \[\]"),
        ({"stages": [1, -1]}, r"stages is \[1, -1\]; give the number of blocks of at least one"),
        ({"dim": 0}, "dim is 0; it must be at least 1"),
        ({"scans": []}, "scans is empty; name at least one scan order"),
        ({"scale": 0}, "scale is 0; it must be from 1 to 64"),
        ({"align": {"groups": 3}}, r"network\.align: groups is 3"),
        ({"align": {"typ": "eda"}}, r"network\.align\.typ: unknown option"),
        ({"align": {"type": "ead"}}, "did you mean 'eda'"),
        ({"fusion": {"frame_mix": "mean"}}, r"network\.fusion\.frame_mix: expected one of"),
        ({"head": {"up": "adup"}}, "did you mean 'adaup'"),
        ({"scale": 6}, "power of two"),
        ({"body": {"heads": 3}}, r"network\.body: heads is 3"),
    ],
)
def test_mistakes_are_named_with_their_place(changes, message):
    with pytest.raises(RecipeError, match=message):
        zoo.build(tiny(**changes))


def test_a_stage_may_have_a_fusion_alone():
    assert [len(body) for body in zoo.build(tiny(stages=[0, 1])).bodies] == [0, 1]


def test_a_burst_of_the_wrong_shape_is_told():
    with pytest.raises(ValueError, match=r"shape \(B, T, 4, H, W\)"):
        zoo.build(tiny())(torch.rand(1, 4, 8, 8))


def test_scores_compare_with_the_reference_alone():
    network = zoo.build(tiny(scale=8, skip="corner")).eval()
    sample = BurstSample(torch.rand(3, 4, 8, 8), torch.rand(3, 64, 64), torch.zeros(3, 2, 8, 8))
    score = score_burst(network, sample, border=8)
    repeated = sample._replace(frames=sample.frames[:1].expand(3, -1, -1, -1))
    assert score_burst(network, repeated, border=8).restored == score.all_reference
    assert mean_burst_score([score, score]) == pytest.approx(score)


def test_the_trainer_trains_resumes_and_tells_mistakes(tmp_path, capsys):
    from recipes.train import main

    photo(tmp_path / "photo.png")
    words = [
        "qmambabsr_tiny", "network.dim=8", "network.burst=3", "network.align.groups=2",
        "network.body.heads=2", "network.stages=[1]", "data.patch=4", "data.batch=2",
        "data.validate_patch=4", "data.validate_bursts=1", "data.border=4", "iterations=4",
        "save_every=2", "log_every=1", f"data.photos={tmp_path}", f"data.validate={tmp_path}",
        "--num-workers", "0",
    ]  # fmt: skip
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert main([*words, "-o", str(whole)]) == 0
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert {"psnr", "baseline", "all_reference"} <= set(lines[-1])
    assert zoo.load(whole / "weights.safetensors").burst == 3

    from recipes.train import Trainer

    stop = Trainer._train_step
    with pytest.MonkeyPatch.context() as patch:

        def killed(self, *batch):
            if self.step == 3:
                raise RuntimeError("killed")
            return stop(self, *batch)

        patch.setattr(Trainer, "_train_step", killed)
        with pytest.raises(RuntimeError, match="killed"):
            main([*words, "-o", str(parted)])
    assert main([*words, "-o", str(parted)]) == 0
    first, second = (
        torch.load(f / "checkpoint-00000004.pt", weights_only=True) for f in (whole, parted)
    )
    assert all(torch.equal(v, second["network"][k]) for k, v in first["network"].items())
    assert main([words[0], "data.synthesis.framez=3", *words[1:]]) == 2
    assert "train.data.synthesis.framez: unknown option" in capsys.readouterr().err


def test_training_lowers_the_loss(tmp_path):
    """How fast, and in which order variants come, is not for a test: toy schedules mislead."""
    changes = {"dim": 8, "burst": 3, "align": "none", "body.heads": 2, "stages": [1]}
    data = {"train.data.patch": 4, "train.optimizer.lr": 5e-3}
    recipe = load_recipe(
        "qmambabsr_tiny", {**{f"network.{k}": v for k, v in changes.items()}, **data}
    )
    network = zoo.build(recipe).train()
    settings = train_settings(recipe)
    task = burst_task_of(settings, network, tmp_path)
    examples = task.examples(task.plan[0])
    batch = [torch.stack(c) for c in zip(*(examples[i] for i in range(2)), strict=True)]
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    values = []
    for _ in range(20):
        optimizer.zero_grad()
        value = task.loss(task.module(network), settings.loss, batch, 0.0)
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.9 * values[0]
