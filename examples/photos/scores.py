"""Measure weights on the held-out photographs, beside simple methods, as the model cards do.

    python examples/photos/scores.py mambair_tiny_photo_x2 photos/held_out

``cases.yaml`` lists the inputs of each model. Degradations are the same in every call. Numbers are
mean PSNR in dB over the photos, at 8 bits. Networks that enlarge, and those against JPEG, are
measured on Y; the border of ``scale`` pixels is left out. Denoising is measured on all channels.
Networks that do not enlarge see the central 256 x 256 pixels of each photo only, to save time.

Shape suffixes: H height, W width in pixels, C channels (1 gray, 3 RGB).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import yaml
from torch import Tensor

import zoo
from zoo.data.degradations import DEGRADATIONS
from zoo.data.pixels import round_to_levels, with_channels
from zoo.data.testsets import TestImage, validation_images
from zoo.errors import ZooError
from zoo.evaluation import Protocol, Restored, Score, evaluate, mean_score, score
from zoo.files import check_writable
from zoo.networks import Network
from zoo.schema import resolve_part

CASES = Path(__file__).parent / "cases.yaml"
MEANS_STRENGTHS = (0.5, 0.7, 0.9, 1.1)
"""Strengths of non-local means that are tried, in parts of the noise; the best mean counts."""


CENTRE = 256
"""Side of what networks that do not enlarge are measured on, in pixels."""


class Central(TestImage):
    """The central part of a photo."""

    def read_clean(self) -> Tensor:
        clean_CHW = super().read_clean()
        top, left = (max(0, side - CENTRE) // 2 for side in clean_CHW.shape[1:])
        return clean_CHW[:, top : top + CENTRE, left : left + CENTRE]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of a model and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="a model of cases.yaml")
    parser.add_argument(
        "folder", help="folder of the held-out photos, or 'samples' for four of them"
    )
    parser.add_argument("-w", "--weights", help="file of weights [those in the package]")
    parser.add_argument("--cases", nargs="*", help="names of inputs [all]")
    parser.add_argument(
        "--json", type=Path, help="write the scores of each photo to this file, too"
    )
    options = parser.parse_args(arguments)
    try:
        cases = cases_of(options.model, options.cases)
        if options.json:
            check_writable(options.json)
        network = zoo.load(options.weights or options.model).eval()
        if options.weights:
            check_same_sizes(network, options.weights, options.model)
        images = photos(options.folder, network.scale)
        rows, found = [], {}
        for name, described in cases.items():
            scores = measured(network, images, described)
            rows.append(means(name, scores))
            found[name] = {way: [one.data() for one in ones] for way, ones in scores.items()}
            if len(rows) == 1:
                print("\n".join(head(rows[0], options.model)), flush=True)
            print(line(rows[-1]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1))
    except (ZooError, OSError) as error:
        sys.stderr.write(f"scores: error: {error}\n")
        return 2
    return 0


def photos(folder: str, scale: int) -> list[TestImage]:
    """Return the photos of a folder, or the four samples, as they are measured."""
    images = validation_images(folder, None, scale)
    return images if scale > 1 else [Central(one.name, one.clean) for one in images]


def cases_of(model: str, names: Sequence[str] | None = None) -> dict[str, object]:
    """Return the inputs of a model: name and degradation.

    Raises:
        ZooError: if the list has no such model or input.
    """
    listed = yaml.safe_load(CASES.read_text())
    if model not in listed:
        raise ZooError(f"{CASES.name} has no model {model!r}; it has {', '.join(listed)}")
    unknown = set(names or []) - set(listed[model])
    if unknown:
        raise ZooError(f"{model} has no input {min(unknown)!r}; it has {', '.join(listed[model])}")
    return {
        name: described for name, described in listed[model].items() if not names or name in names
    }


def check_same_sizes(network: Network, weights: str, model: str) -> None:
    """Check that weights have the scale and the channels of a model.

    Raises:
        ZooError: if they have not; the table would not be that of the model.
    """
    expected = zoo.build(model)
    if network.scale != expected.scale:
        raise ZooError(
            f"{weights}: these weights are for scale {network.scale}, {model} for scale "
            f"{expected.scale}"
        )
    ours, theirs = (f"{one.channels} and {one.out_channels}" for one in (network, expected))
    if ours != theirs:
        raise ZooError(
            f"{weights}: these weights take and return {ours} channels, {model} {theirs}"
        )


def measured(
    network: Network, images: Sequence[TestImage], described: object
) -> dict[str, list[Score]]:
    """Return the scores of the network (``ours``) and of simple methods, by their names.

    The fields ``baseline_...`` of ``ours`` are bicubic enlargement, or the input.
    """
    degradation = resolve_part(DEGRADATIONS, described, "degradation")(scale=network.scale)
    noise = getattr(degradation, "noise", None)
    denoises = network.scale == 1 and noise is not None
    protocol = Protocol(channel="all" if denoises else "y")
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    if network.scale > 1:
        ways["Lanczos"] = partial(enlarged, scale=network.scale)
    if denoises and noise is not None:
        for strength in MEANS_STRENGTHS:
            ways[f"means {strength}"] = partial(averaged, strength=noise[0] * strength)
    others: dict[str, list[Score]] = {name: [] for name in ways}

    def seen(name: str, found: Restored) -> None:
        for way, apply in ways.items():
            image_HWC = apply(found.degraded)
            other = found._replace(restored=with_channels(image_HWC, found.clean.shape[2]))
            others[way].append(score(name, other, network.scale, protocol))

    ours = evaluate(network, images, degradation, protocol=protocol, seen=seen)
    if denoises:
        best = max(others.values(), key=lambda scores: mean_score(scores).psnr)
        others = {"non-local means": best}
    return {**others, "ours": ours}


def enlarged(image_HWC: np.ndarray, scale: int) -> np.ndarray:
    """Enlarge by OpenCV's Lanczos interpolation over 8 x 8 pixels."""
    height, width = (side * scale for side in image_HWC.shape[:2])
    found = cv2.resize(image_HWC, (width, height), interpolation=cv2.INTER_LANCZOS4)
    return np.atleast_3d(found).clip(0, 1)


def averaged(image_HWC: np.ndarray, strength: float) -> np.ndarray:
    """Denoise by OpenCV's non-local means; ``strength`` in levels of 255."""
    levels_HWC = round_to_levels(image_HWC).astype(np.uint8)
    if levels_HWC.shape[2] == 1:
        found = np.atleast_3d(cv2.fastNlMeansDenoising(levels_HWC[:, :, 0], None, strength))
    else:
        found = cv2.fastNlMeansDenoisingColored(levels_HWC, None, strength, strength)
    return found.astype(np.float32) / 255


def means(name: str, scores: dict[str, list[Score]]) -> dict[str, str]:
    """Return a row of the table: method and mean PSNR."""
    ours = mean_score(scores["ours"])
    row = {"input": name, "baseline": f"{ours.baseline_psnr:.2f}"}
    row |= {way: f"{mean_score(found).psnr:.2f}" for way, found in scores.items() if way != "ours"}
    worst = min(one.psnr - one.baseline_psnr for one in scores["ours"])
    return row | {
        "ours": f"{ours.psnr:.2f}",
        "gain": f"{ours.psnr - ours.baseline_psnr:+.2f}",
        "least": f"{worst:+.2f}",
    }


def head(row: dict[str, str], model: str) -> list[str]:
    """Return the first two lines of the table."""
    enlarges = "Lanczos" in row
    titles = {
        "baseline": "bicubic" if enlarges else "as it is",
        "ours": model,
        "least": "least gain of a photo",
    }
    names = [titles.get(name, name) for name in row]
    return ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]


def line(row: dict[str, str]) -> str:
    """Return a row as a line of Markdown."""
    return "| " + " | ".join(row.values()) + " |"


if __name__ == "__main__":
    sys.exit(main())
