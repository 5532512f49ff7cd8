"""The parts of burst networks: what the paper says of each, and independent implementations."""

from __future__ import annotations

import onnx
import onnxruntime as runtime
import pytest
import torch
import torch.nn.functional as F

from zoo.blocks import (
    EDA,
    MSFM,
    QSSM,
    Warp,
)
from zoo.heads import AdaUp, DoublingHead
from zoo.ops.deformable import deformable_conv, warp
from zoo.ops.registration import register_burst


def gradients(output, *inputs):
    return torch.autograd.grad(output.sum(), inputs, allow_unused=True, retain_graph=True)


def without_grad(gradient):
    return gradient is None or not gradient.any()


@pytest.mark.parametrize("mix", ["concat", "mean_max"])
def test_the_reference_alone_steers_the_scan(mix):
    """Delta and B come from the reference; u and, by default, C from the other frames."""
    part = QSSM(8, burst=4, denoise="none", frame_mix=mix)
    reference = torch.rand(2, 3, 5, 8, requires_grad=True)
    frames = torch.rand(2, 3, 3, 5, 8, requires_grad=True)
    inputs, gate = part.inputs(part.query(reference, frames), frames)
    for steering in (inputs.delta, inputs.B, gate):
        of_reference, of_frames = gradients(steering, reference, frames)
        assert of_reference.any() and without_grad(of_frames)
    for asked in (inputs.u, inputs.C):
        of_reference, of_frames = gradients(asked, reference, frames)
        assert of_frames.any() and without_grad(of_reference)


def test_mean_max_takes_any_number_in_any_sequence():
    part = QSSM(8, burst=4, frame_mix="mean_max", denoise="mean_max").eval()
    reference, frames = torch.rand(1, 4, 5, 8), torch.rand(1, 6, 4, 5, 8)
    with torch.no_grad():
        expected = part(reference, frames)
        shuffled = part(reference, frames[:, torch.randperm(6)])
        # float32 sums in another sequence
        torch.testing.assert_close(shuffled, expected, atol=1e-6, rtol=1e-5)
        assert part(reference, frames[:, :1]).shape == expected.shape
    assert part.any_length
    assert not QSSM(8, burst=4, frame_mix="mean_max").any_length


def test_three_raw_adaups_fade_and_residual_ones_do_not():
    torch.manual_seed(1)
    x = torch.randn(1, 12, 12, 16) * 0.6

    def spread(gate):
        head = DoublingHead(16, scale=8, channels=3, up=lambda *a, **k: AdaUp(*a, gate=gate, **k))
        y = x
        for up in head.ups:
            y = F.gelu(up(y))
        return float(y.std())

    assert spread("residual") > 0.05 > 100 * spread("raw")


def slow_deformable_conv(x, offset, mask, weight, groups, dilation):
    """Written from the definition, one output, tap and group at a time, in float64."""
    images, channels, height, width = x.shape
    side = weight.shape[-1]
    taps = side * side
    offset_groups = mask.shape[1] // taps
    per_group, per_conv = channels // offset_groups, channels // groups
    x, offset, mask, weight = (t.double() for t in (x, offset, mask, weight))

    def sample(plane, row, column):
        total = 0.0
        top, left = int(row // 1), int(column // 1)
        for r, c in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
            if 0 <= r < height and 0 <= c < width:
                total += (1 - abs(row - r)) * (1 - abs(column - c)) * plane[r, c]
        return total

    result = torch.zeros(images, len(weight), height, width, dtype=torch.float64)
    for n in range(images):
        for row in range(height):
            for column in range(width):
                sampled = torch.zeros(channels, taps, dtype=torch.float64)
                for c in range(channels):
                    for k in range(taps):
                        place = (c // per_group) * taps + k
                        sampled[c, k] = mask[n, place, row, column] * sample(
                            x[n, c],
                            float(row + (k // side - side // 2) * dilation
                                  + offset[n, 2 * place, row, column]),
                            float(column + (k % side - side // 2) * dilation
                                  + offset[n, 2 * place + 1, row, column]),
                        )  # fmt: skip
                for o in range(len(weight)):
                    first = o // (len(weight) // groups) * per_conv
                    result[n, o, row, column] = (
                        sampled[first : first + per_conv] * weight[o].flatten(1)
                    ).sum()
    return result


@pytest.mark.parametrize(
    ("groups", "offset_groups", "side", "dilation"), [(1, 1, 3, 1), (2, 4, 3, 2), (4, 2, 1, 1)]
)
def test_the_gather_is_a_deformable_convolution(groups, offset_groups, side, dilation):
    x = torch.randn(2, 4, 4, 5)
    offset = torch.randn(2, 2 * offset_groups * side**2, 4, 5) * 4  # also far outside
    mask = torch.rand(2, offset_groups * side**2, 4, 5)
    weight = torch.randn(4, 4 // groups, side, side)
    found = deformable_conv(x, offset, mask, weight, groups=groups, dilation=dilation)
    expected = slow_deformable_conv(x, offset, mask, weight, groups, dilation)
    # float32 positions: an error of 1e-6 pixels times the slope of unit noise
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("opset", [19, 22])
def test_the_gather_equals_onnx_deform_conv(opset):
    x, offset = torch.randn(2, 8, 6, 7), torch.randn(2, 2 * 4 * 9, 6, 7) * 3
    mask, weight = torch.rand(2, 4 * 9, 6, 7), torch.randn(8, 4, 3, 3)
    make, names = onnx.helper, ["x", "w", "o", "b", "m"]
    node = make.make_node(
        "DeformConv", names, ["y"], group=2, offset_group=4, pads=[2] * 4, dilations=[2, 2],
        kernel_shape=[3, 3],
    )  # fmt: skip
    values = dict(zip(names, (x, weight, offset, torch.zeros(8), mask), strict=True))
    kind = onnx.TensorProto.FLOAT
    graph = make.make_graph(
        [node], "g", [make.make_tensor_value_info(n, kind, v.shape) for n, v in values.items()],
        [make.make_tensor_value_info("y", kind, None)],
    )  # fmt: skip
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", opset)], ir_version=10)
    session = runtime.InferenceSession(model.SerializeToString())
    (expected,) = session.run(None, {n: v.numpy() for n, v in values.items()})
    found = deformable_conv(x, offset, mask, weight, groups=2, dilation=2)
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-5, rtol=1e-5)


def test_a_base_flow_is_an_offset_that_all_taps_share():
    x, mask = torch.randn(2, 4, 5, 6), torch.rand(2, 18, 5, 6)
    offset, flow = torch.randn(2, 36, 5, 6), torch.randn(2, 2, 5, 6)
    weight = torch.randn(4, 4, 3, 3)
    found = deformable_conv(x, offset, mask, weight, base_flow_N2HW=flow)
    expected = deformable_conv(x, offset + flow.repeat(1, 18, 1, 1), mask, weight)
    torch.testing.assert_close(found, expected)


def test_a_given_flow_brings_a_shifted_frame_back():
    still = torch.rand(1, 1, 8, 8, 4)
    moved = still.roll((1, 2), dims=(2, 3))
    flow = torch.tensor([[0.0, 0.0], [1.0, 2.0]])[None, :, :, None, None].expand(1, 2, 2, 8, 8)
    aligned = Warp(4)(torch.cat([still, moved], dim=1), flow).frames
    torch.testing.assert_close(aligned[:, 1, :6, :5], still[:, 0, :6, :5])


def test_registration_finds_an_affine_motion():
    torch.manual_seed(3)
    scene = F.interpolate(torch.rand(1, 1, 20, 24), size=(80, 96), mode="bicubic").clamp(0, 1)
    rows, columns = torch.meshgrid(torch.arange(80.0), torch.arange(96.0), indexing="ij")
    flow = torch.stack([2.3 + 0.01 * (columns - 48), -3.6 - 0.01 * (rows - 40)])
    # frame(p) = scene(p - flow) up to second order, so that frame(p + flow) = scene(p)
    moved = warp(scene, -flow[None])
    burst = torch.cat([scene, moved])[None] + 0.02 * torch.randn(1, 2, 1, 80, 96)
    found = register_burst(burst)
    assert not found[0, 0].any()
    error = (found[0, 1] - flow)[:, 8:-8, 8:-8].norm(dim=0)
    assert error.mean() < 0.1


def test_a_featureless_burst_registers_to_almost_nothing():
    flow = register_burst(torch.full((1, 3, 4, 40, 40), 0.2))
    assert flow.isfinite().all() and flow.abs().max() < 6
    assert register_burst(torch.zeros(1, 2, 4, 9, 9)).isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QSSM(8, burst=1), "at least 2 frames"),
        (lambda: MSFM(8, branches=[]), "name at least one"),
        (lambda: MSFM(8, heads=3), "must divide the 8 channels"),
        (lambda: EDA(8, groups=3), "must divide the 8 channels"),
        (lambda: AdaUp(8, out=8, kernel=5), "must be 3"),
        (lambda: DoublingHead(8, scale=6, channels=3), "power of two"),
        (lambda: Warp(8)(torch.rand(1, 2, 4, 4, 8)), "needs a flow"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make()
