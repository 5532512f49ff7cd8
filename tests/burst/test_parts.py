"""The parts of burst networks: what the paper says of each, and independent implementations."""

from __future__ import annotations

import onnx
import onnxruntime as runtime
import pytest
import torch
import torch.nn.functional as F

from zoo.blocks import (
    ALIGNERS,
    BURST_FUSIONS,
    EDA,
    MSFM,
    NRFE,
    QSSM,
    SS2D,
    AxialSS2D,
    ChannelTransformer,
    GroupFlow,
    Warp,
)
from zoo.heads import UPSAMPLERS, AdaUp, DoublingHead, Transposed
from zoo.ops.deformable import deformable_conv, warp
from zoo.ops.registration import register_burst
from zoo.scans import Window


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


def test_with_denoising_the_frames_reach_the_query_and_c_may_come_from_it():
    part = QSSM(8, burst=4, c_source="reference")
    reference = torch.rand(1, 3, 5, 8, requires_grad=True)
    frames = torch.rand(1, 3, 3, 5, 8, requires_grad=True)
    inputs, _ = part.inputs(part.query(reference, frames), frames)
    assert all(g.any() for g in gradients(inputs.delta, reference, frames))
    assert gradients(inputs.C, reference)[0].any()


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


@pytest.mark.parametrize("name", BURST_FUSIONS.names())
def test_every_fusion_uses_reference_and_frames(name):
    part = BURST_FUSIONS.get(name).target(8, burst=4)
    reference = torch.rand(2, 3, 5, 8, requires_grad=True)
    frames = torch.rand(2, 3, 3, 5, 8, requires_grad=True)
    output = part(reference, frames)
    assert output.shape == reference.shape
    (of_reference,), of_frames = gradients(output, reference), gradients(output, frames)[0]
    assert of_reference.any() and of_frames.flatten(2).any(dim=2).all()
    single = torch.cat([part(reference[i : i + 1], frames[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(single, output, atol=1e-5, rtol=1e-5)


def test_nrfe_takes_any_number_of_frames():
    part = NRFE(8, burst=14)
    for count in (1, 5, 13):
        assert part(torch.rand(1, 3, 3, 8), torch.rand(1, count, 3, 3, 8)).shape == (1, 3, 3, 8)


def kernels_per_image(part, x_BHWI):
    """AdaUp as the paper writes it: a transposed convolution each, W_f = (W * L) * L1."""
    outputs = []
    for x_HWI, into, out in zip(x_BHWI, *part.scales(x_BHWI), strict=True):
        weight = part.weight * into.flatten()[:, None, None, None] * out.flatten()[:, None, None]
        odd = weight.shape[-1] % 2
        outputs.append(
            F.conv_transpose2d(
                x_HWI.permute(2, 0, 1)[None], weight, part.bias, 2, 1, output_padding=odd
            )
        )
    return torch.cat(outputs).permute(0, 2, 3, 1)


@pytest.mark.parametrize("kernel", [3, 4])
@pytest.mark.parametrize("gate", ["residual", "raw"])
def test_adaup_equals_a_kernel_for_each_image(kernel, gate):
    part = AdaUp(6, out=5, kernel=kernel, gate=gate)
    torch.nn.init.normal_(part.to_out.weight)
    x = torch.rand(3, 4, 5, 6)
    expected = kernels_per_image(part, x)
    assert expected.shape == (3, 8, 10, 5)
    torch.testing.assert_close(part(x), expected, atol=1e-5, rtol=1e-5)
    assert not torch.equal(part.scales(x)[0][0], part.scales(x)[0][1])


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


@pytest.mark.parametrize("kernel", [3, 4])
def test_enlargement_begins_bilinear_and_keeps_its_phase(kernel):
    part = Transposed(2, out=2, kernel=kernel)
    with torch.no_grad():
        taps = torch.tensor({3: [0.5, 1, 0.5], 4: [0.25, 0.75, 0.75, 0.25]}[kernel])
        part.weight.zero_()[range(2), range(2)] = taps[:, None] * taps
    ramp = torch.arange(6.0).expand(6, 6)[None, :, :, None].repeat(1, 1, 1, 2)
    row = part(ramp)[0, 5, 2:9, 0]
    start = torch.arange(2.0, 9) / 2 if kernel == 3 else (torch.arange(2.0, 9) - 0.5) / 2
    torch.testing.assert_close(row, start)


@pytest.mark.parametrize("name", UPSAMPLERS.names())
def test_every_upsampler_doubles(name):
    part = UPSAMPLERS.get(name).target(6, out=4)
    assert part(torch.rand(2, 3, 5, 6)).shape == (2, 6, 10, 4)


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


@pytest.mark.parametrize("name", [n for n in ALIGNERS.names() if n != "warp"])
def test_aligners_leave_the_reference_to_itself_and_frames_to_themselves(name):
    part = ALIGNERS.get(name).target(8, **({"groups": 2} if name != "none" else {})).eval()
    frames = torch.rand(1, 4, 8, 8, 8, requires_grad=True)
    aligned = part(frames).frames
    of_reference = gradients(aligned[:, 0], frames)[0]
    assert of_reference[:, 0].any() and not of_reference[:, 1:].any()
    of_second = gradients(part(frames).frames[:, 2], frames)[0]
    assert of_second[:, 2].any() and not of_second[:, 1].any() and not of_second[:, 3].any()


@pytest.mark.parametrize("kind", [EDA, GroupFlow])
def test_displacements_begin_at_zero_or_at_the_flow_and_chunks_change_nothing(kind):
    part = kind(8, groups=2, blocks=1, refine="last", frame_chunk=2).eval()
    frames, flow = torch.rand(2, 6, 8, 12, 8), torch.full((2, 6, 2, 8, 12), 0.5)
    found = part(frames)
    assert [tuple(d.shape[3:]) for d in found.displacements] == [(2, 3), (4, 6), (8, 12)]
    assert not any(d.any() for d in found.displacements)
    prior = part(frames, flow)
    for level, shrink in zip(prior.displacements, (4, 2, 1), strict=True):
        torch.testing.assert_close(level[:, 1:], torch.full_like(level[:, 1:], 0.5 / shrink))
    with torch.no_grad():
        torch.testing.assert_close(part(frames).frames, found.frames, atol=1e-5, rtol=1e-5)
        part.frame_chunk = 0
        torch.testing.assert_close(part(frames).frames, found.frames, atol=1e-5, rtol=1e-5)


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


def test_axial_scan_equals_ss2d_on_single_lines():
    """On an image of one row, the row directions are SS2D's own, and columns are one token long."""
    part = AxialSS2D(8, d_conv=1)
    plain = SS2D(8, d_conv=1)
    plain.load_state_dict(part.state_dict())
    x = torch.rand(1, 6, 5, 8)
    with torch.no_grad():
        whole = part(x)
        # a row of the image depends on columns too: compare where there is one line only
        torch.testing.assert_close(part(x[:, :1]), one_row(plain, x[:, :1]))
        turned = part(x[:, :, :1])
        torch.testing.assert_close(turned, one_row(plain, x[:, :, :1]))
    assert whole.shape == x.shape


def one_row(plain, x):
    """SS2D on an image one pixel wide, where the directions across see single tokens."""
    from zoo.ops.scan import selective_scan

    height, width = x.shape[1:3]
    inner, gate = plain.in_proj(x).chunk(2, dim=-1)
    u = F.silu(plain.conv(inner)).flatten(1, 2)
    projected = torch.einsum("ble,kxe->blkx", u, plain.x_proj_weight)
    delta, B, C = projected.split(plain.sizes, dim=-1)
    total = 0
    forth = torch.arange(u.shape[1], dtype=torch.int32)[None]
    along = (0, 2) if height == 1 else (1, 3)
    for k in range(4):

        def scan(tokens, k=k, order=None):
            s = slice(k, k + 1)
            return selective_scan(
                u[:, tokens], delta[:, tokens, s], plain.dt_proj_weight[s], plain.dt_proj_bias[s],
                -plain.A_log[s].exp(), B[:, tokens, s], C[:, tokens, s], plain.D[s], order,
                reduce=True,
            )  # fmt: skip

        if k in along:
            total = total + scan(slice(None), order=forth if k == along[0] else forth.flip(1))
        else:
            alone = [scan(slice(t, t + 1), order=forth[:, :1]) for t in range(u.shape[1])]
            total = total + torch.cat(alone, dim=1)
    y = total.unflatten(1, (height, width))
    return plain.out_proj(plain.out_norm(y) * F.silu(gate))


def test_axial_scan_stays_on_rows_and_columns():
    part = AxialSS2D(8, d_conv=1)
    x = torch.rand(1, 6, 7, 8, requires_grad=True)
    (reach,) = gradients(part(x)[:, 2, 3], x)
    touched = reach.abs().sum((0, 3)) > 0
    cross = torch.zeros(6, 7, dtype=torch.bool)
    cross[2], cross[:, 3] = True, True
    assert torch.equal(touched, cross)


@pytest.mark.parametrize("branches", [["conv"], ["ssm"], ["transformer"], ["ssm", "conv"]])
def test_msfm_with_some_branches(branches):
    part = MSFM(8, branches=branches)
    assert part.weights.tolist() == pytest.approx([1 / len(branches)] * len(branches))
    assert part(torch.rand(2, 3, 5, 8)).shape == (2, 3, 5, 8)


def test_msfm_may_walk_another_order():
    part = MSFM(8, scan=Window(size=2), mixer=SS2D)
    assert part(torch.rand(1, 4, 4, 8)).shape == (1, 4, 4, 8)


def test_channel_attention_weights_do_not_depend_on_the_size():
    part = ChannelTransformer(8, heads=2)
    assert part(torch.rand(1, 1, 1, 8)).shape == (1, 1, 1, 8)
    assert part(torch.rand(1, 5, 9, 8)).shape == (1, 5, 9, 8)


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
