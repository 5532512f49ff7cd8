"""Pixels: levels and back, arrays and tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zoo.data.pixels import dequantise, quantise, to_array, to_tensor, with_channels


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays_and_tensors_are_the_same_image(channels):
    image_HWC = np.random.default_rng(0).random((5, 7, channels), dtype=np.float32)
    turned_HWC = image_HWC[::-1, :, ::-1]  # an array in another sequence of memory
    for given in (image_HWC, turned_HWC):
        image_CHW = to_tensor(given)
        assert image_CHW.shape == (channels, 5, 7) and image_CHW.is_contiguous()
        assert torch.equal(image_CHW[channels - 1, 4], torch.tensor(given[4, :, -1].copy()))
        back_HWC = to_array(image_CHW)
        assert back_HWC.flags.c_contiguous and np.array_equal(back_HWC, given)


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_every_level_comes_back(bit_depth):
    levels = np.arange(2**bit_depth).astype(np.uint8 if bit_depth == 8 else np.uint16)
    values = dequantise(levels)
    assert values.dtype == np.float32 and values[0] == 0 and values[-1] == 1
    assert np.array_equal(quantise(values, bit_depth), levels)


def test_gray_is_the_luma_of_bt601_and_the_same_in_all_channels_when_it_becomes_rgb():
    weights = with_channels(np.eye(3, dtype=np.float32)[None], 1)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights[0, :, 0], [0.299, 0.587, 0.114], rtol=1e-6)
    assert np.array_equal(with_channels(weights, 3), np.repeat(weights, 3, axis=2))
