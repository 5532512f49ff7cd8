"""Pixels: levels and back, arrays and tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zoo.data.pixels import dequantise, quantise, to_array, to_tensor


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
