"""Every code block of the documentation is run, or says why not.

Blocks of ``sh`` and ``python`` run in a folder of their page, one after another, with the files
that they name made beforehand; the first line of a block may name a file that it is written to. A
``yaml`` block is a recipe. A block that is not run has a comment before it:
``<!-- not run: WHY -->``.
CONTRIBUTING.md has a test of its own, and so has docs/papers.md.

``make test-docs`` runs them.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml

import zoo
import zoo.blocks
from tests.helpers.scripts import run_script
from tests.helpers.small_weights import small_network, their_names
from zoo.checkpoints import save_official
from zoo.data import Photo, load_sample, read_photo, write_photo
from zoo.recipe import load_recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES.remove(ROOT / "docs/papers.md")
"""tests/test_papers.py runs each of its commands."""

FENCE = re.compile(
    r"^(?:<!-- not run: (?P<why>[^>]+?) -->\n+)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.M | re.S,
)
CODE = ("sh", "python", "yaml")
OUTPUT = ("text", "")
"""Languages of what is printed, and of plain layouts."""


@dataclass(frozen=True)
class Block:
    """A code block: its page, its first line there, and why it is not run."""

    page: str
    line: int
    language: str
    text: str
    why: str

    def __str__(self):
        return f"{self.page}:{self.line}"


def blocks_of(path):
    text = path.read_text(encoding="utf-8")
    return [
        Block(
            path.stem,
            text[: found.start("text")].count("\n"),
            found["language"],
            found["text"],
            " ".join((found["why"] or "").split()),
        )
        for found in FENCE.finditer(text)
    ]


BLOCKS = {path.stem: blocks_of(path) for path in PAGES}

SHORTER = [
    (r"^ *pip install .*$", ""),  # what is needed is installed
    (r"--budget \w+|\biterations=\d+", "iterations=1"),
    (r"(?:recipes/train\.py|zoo train) (?!.*iterations=)\S+", r"\g<0> iterations=1"),
    (r"recipes/train\.py (?!.*data\.validate=)\S+", r"\g<0> data.validate=held_out"),
    (r"data\.batch=\d+", "data.batch=1"),
    (r'device="cuda"', 'device="cpu"'),
]
"""What is replaced in the commands, so that they end soon and need no GPU."""


def shorter(text):
    text = re.sub(r" \\\n +", " ", text)
    for pattern, replacement in SHORTER:
        text = re.sub(pattern, replacement, text, flags=re.M)
    return text


def photo(path, height=80, width=120, x=0):
    write_photo(path, Photo(load_sample("coffee").color_HWC[60 : 60 + height, x : x + width]))


def photos(folder, count=2, side=72):
    for number in range(count):
        photo(folder / f"{number}.png", side, side, x=80 * number)


def half(folder):
    """The degraded version of the photo in DIV2K_train_HR, with half its sides."""
    path = folder.parents[1] / "DIV2K_train_HR" / "0.png"
    write_photo(folder / "0x2.png", Photo(read_photo(path).color_HWC[::2, ::2]))


def weights(path, network):
    """The weights of a network as its authors' code saves them."""
    save_official(network, path)


def small_csr():
    return zoo.build("mambacsr_wo", dim=24, depths=[2])


def of_recipe(name):
    return lambda path: weights(path, zoo.build(name))


def animation(path):
    from PIL import Image

    frames = [Image.fromarray(np.full((8, 9, 3), level, np.uint8)) for level in (0, 90, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def all_datasets(folder):
    for name in ("Set5", "Set14", "BSDS100", "B100", "Urban100", "Manga109"):
        photos(folder / name, 1, 24)


def trainers(path):
    """A checkpoint as Lightning writes it."""
    state = {f"model.{name}": value for name, value in their_names(small_network()).items()}
    torch.save({"epoch": 3, "state_dict": state}, path)


FILES = {
    "photo.png": photo,
    "photo.jpg": lambda path: photo(path, 300, 300),  # a burst is made of it
    "small.jpg": photo,
    "my/photos": photos,
    "photos": photos,
    "dance.gif": animation,
    "DIV2K_train_HR": lambda path: photos(path, 1, 400),
    "DIV2K_train_LR_bicubic/X2": half,
    "DIV2K_train": photos,
    "DIV2K": lambda path: photos(path, 1, 144),
    "held_out": lambda path: photos(path, 1),
    "Set14": lambda path: photos(path, 1, 24),
    "datasets": all_datasets,
    "light_x2.pth": of_recipe("mambair_light_x2"),
    "light_x4.pth": of_recipe("mambair_light_x4"),
    "x4.pth": of_recipe("mambair_light_x4"),
    "MambaIR_lightSR_x4.pth": of_recipe("mambair_light_x4"),
    "MambaIR_classicSR_x4.pth": lambda path: weights(path, small_network()),
    "MambaCSR_Q10_Final.pth": of_recipe("mambacsr_final"),
    "MambaCSR_Q10_wo.pth": of_recipe("mambacsr_wo"),
    "mine.pth": lambda path: weights(path, small_csr()),
    "mine.safetensors": lambda path: zoo.save(small_csr(), path),
    "mambairv2_lightSR_x4.pth": of_recipe("mambairv2_light_x4"),
    "MaIR_T_lightSR_x2.pth": of_recipe("mair_light_t_x2"),
    "vmambair.pth": of_recipe("vmambair_derain"),
    "eamamba.pth": of_recipe("eamamba_dn15"),
    "wavemamba.pth": of_recipe("wavemamba_lol"),
    "last.ckpt": trainers,
    "runs/mine/weights.safetensors": lambda path: zoo.save(small_network(), path),
    "mine.yaml": lambda path: path.write_text(yaml.safe_dump(small_network().recipe.data())),
    "model.onnx": lambda path: run(path.parent, f"zoo export onnx -n mambair_tiny_x2 -o {path}"),
}
"""Files and folders that commands name, and how each is made."""

STATED = {
    "README": {"image": np.zeros((6, 7, 3), np.uint8)},
    "weights": {"state_dict": their_names(small_network()), "Block": zoo.blocks.Block},
    "restoring": {"image": np.zeros((6, 7, 3), np.uint8), "window": Mock(cancelled=False)},
}
"""Names that the Python of a page takes as given."""


def make_files(folder, text):
    words = re.findall(r"[\w./-]+", text)
    for name, make in FILES.items():
        path = folder / name
        named = any(word.rstrip("/") == name or word.startswith(f"{name}/") for word in words)
        if named and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            make(path)


def run(folder, script):
    """Run a script with the commands of this checkout."""
    python_path = os.pathsep.join([str(ROOT), str(folder)])
    done = run_script(folder, script, 900, PYTHONPATH=python_path)
    assert done.returncode == 0, f"{script}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def in_checkout(folder):
    """Links to what commands name by paths of the checkout."""
    for name in ("recipes", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)


def play(folder, block, names):
    text = shorter(block.text)
    named = re.match(r"# ([\w.]+\.(?:py|yaml))\b", text)
    if named:
        (folder / named[1]).write_text(text)
    make_files(folder, text)
    if block.language == "sh":
        run(folder, text)
    elif block.language == "yaml":
        path = folder / (named[1] if named else f"block{block.line}.yaml")
        path.write_text(text)
        load_recipe(path)
    elif not named or "register" in text:
        exec(compile(text, str(block), "exec"), names)


@pytest.mark.docs
@pytest.mark.parametrize("page", [page for page, blocks in BLOCKS.items() if blocks])
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    in_checkout(tmp_path)
    names = {"__name__": page, "zoo": zoo, **STATED.get(page, {})}
    waiting = [block for block in BLOCKS[page] if block.language in CODE and not block.why]
    with zoo.registry.temporary_registrations():
        for block in waiting:
            try:
                play(tmp_path, block, names)
            except BaseException as error:
                raise AssertionError(f"{block} fails") from error


@pytest.mark.parametrize("page", BLOCKS)
def test_every_block_is_run_or_says_why_not(page):
    for block in BLOCKS[page]:
        assert block.language in (*CODE, *OUTPUT), f"{block}: {block.language} is not run"
        assert not block.why or len(block.why) > 10, f"{block}: say why it is not run"
    text = (ROOT / "README.md" if page == "README" else ROOT / f"docs/{page}.md").read_text()
    assert text.count("<!-- not run:") == sum(bool(block.why) for block in BLOCKS[page])
    assert len(re.findall("^ *```", text, re.M)) == 2 * len(BLOCKS[page]), "an indented block"
