"""Recipes that are wrong, hostile or too large: one sentence within a second, and no memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Literal

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import zoo
from zoo.blocks import Branch
from zoo.cli import main
from zoo.errors import RecipeError, ZooError
from zoo.limits import VARIABLE, max_parameters, use_max_parameters
from zoo.networks.size import _NoValues, build_within_limit
from zoo.recipe import load_recipe, self_contained
from zoo.registry import kinds

SMALL = {"network": {"type": "single_image", "dim": 32, "depths": [1], "scale": 2}}
UNET = {"type": "unet", "depths": [1, 1, 1, 1], "refinement": 1, "dim": 32}
BURST = {"type": "burst", "dim": 16}

SIZES = {
    "width": ({"dim": 10**9}, r"network: it has more than 27,000,000,003 parameters \(108\.0 GB\)"),
    "width of text": ({"dim": 1e11}, r"network\.dim: expected a whole number, got 1000000"),
    "width as integer": ({"dim": int(1e11)}, "network: it has more than 2,700,000,000,003 param"),
    "width beyond tensors": ({"dim": 2**63}, "network: network 'single_image' cannot be built"),
    "blocks": ({"depths": [100_000_000]}, "network: depths adds up to 100,000,000 blocks"),
    "blocks of a U-Net": ({**UNET, "refinement": 10**8}, "depths adds up to 100,000,004"),
    "blocks of a burst": ({**BURST, "stages": [10**8]}, "stages adds up to 100,000,000"),
    "coarse blocks": ({"coarse": {"depths": [10**8]}}, r"coarse\.depths adds up to 100,000,000"),
    "groups": ({"depths": [1] * 4000}, "network: it has more than 5,000 tensors"),
    "channels": ({"channels": 10**9}, "1,000,000,000 parameters"),
    "frames": ({**BURST, "burst": 10**9}, "parameters"),
    "rank": ({"block.mixer.dt_rank": 10**9}, "parameters"),
    "states": ({"block.mixer.d_state": 257}, r"mixer: d_state is 257; it must be at most 256"),
    "kernel": ({"block.mixer.d_conv": 65}, r"mixer: d_conv is 65; it must be odd and from 1 to 63"),
    "kernel of a line": (
        {"block.mixer": {"type": "mamba1d", "d_conv": 64}},
        "d_conv is 64; it must be from 1 to 63",
    ),
    "kernel of a branch": (
        {"block.branch": {"type": "conv_ffn", "kernel": 65}},
        "kernel is 65; it must be odd and fr",
    ),
    "scan over channels": (
        {"block.mixer": {"type": "omni_scan", "channel_rank": 1025}},
        "channel_rank is 1025; it m",
    ),
    "factor": (
        {"block": {"type": "rlmb", "branch_factor": 1e308}},
        "it must be from -1000 to 1000",
    ),
    "eps": (
        {"block.mixer": {"type": "omni_scan", "norm": {"type": "layer", "eps": 1e-320}}},
        "eps is 1e-320; it must be from 1e-12 to 1",
    ),
    "expansion": ({"block.mixer.expand": 1e308}, r"network\.block\.mixer: .*OverflowError"),
    "scale": ({"scale": 2**40}, "scale is 1099511627776; it must be from 1 to 64"),
    "scale of a burst": ({**BURST, "scale": 2**40}, "it must be from 1 to 64"),
    "window": ({"scans": [{"type": "window", "size": 10**9}]}, r"scans\[0\]: size is 1000000000;"),
    "directions": ({"scans": [{"type": "shuffled", "count": 10**9}]}, "it must be at most 64"),
    "squeeze": ({"block.branch.squeeze": 0}, "squeeze of the channel attention is 0; it must be"),
    "compress": ({"block.branch.compress": 0}, "compress of the channel .* is 0; it must be at"),
    "hidden": ({"head.hidden": 0}, r"network\.head: weight of Conv2d would be empty"),
    "hidden below 0": ({"head.hidden": -1}, r"network\.head: head 'pixelshuffle' cannot be built"),
    "range": ({"img_range": 0.0}, "img_range is 0; it must be from 0.001 to 1e6"),
    "small range": ({"img_range": 1e-320}, "img_range is 9.99989e-321; it must be from 0.001"),
    "large range": ({"img_range": 1e308}, r"img_range is 1e\+308; it must be from 0.001"),
    "rate": ({"drop_path": -1.0}, "drop_path is -1; it must be at least 0"),
    "channels of a U-Net": ({**UNET, "channels": 0}, "channels is 0; it must be at least 1"),
    "a long key": ({"k" * 10**5: 1}, r"network\.k+\.\.\.: unknown option of network 'single_image"),
    "a long name": ({"block": "b" * 10**5}, r"network\.block: unknown block 'b+\.\.\.b+'; known"),
    "a long value": ({"dim": [1] * 4000}, r"network\.dim: expected a whole number, got \[1, 1, "),
    "a digit of another script": ({"scans": ["raster"], "scans[²].size": 1}, "network"),
    "an index of 6,000 digits": ({"depths[" + "1" * 6000 + "]": 1}, "is not an index"),
}


@pytest.mark.parametrize(("overrides", "message"), SIZES.values(), ids=SIZES)
def test_a_wrong_size_is_one_sentence_within_seconds(overrides, message):
    base = SMALL
    if "type" in overrides:
        base, overrides = {"network": overrides}, {}
    start = time.process_time()
    with pytest.raises(RecipeError, match=message) as error:
        zoo.build(base, **overrides)
    # A refusal takes 0.6 s at most; a loop over what was asked for would take minutes.
    assert time.process_time() - start < 5 and len(str(error.value)) < 500


def test_a_network_that_is_too_large_takes_no_memory_and_changes_no_random_state():
    before = torch.get_rng_state()
    with pytest.raises(RecipeError, match="too much for the limit of 250,000,000 parameters"):
        zoo.build(SMALL, dim=4000, depths=[6] * 6)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(0)
    first = zoo.build(SMALL)
    torch.manual_seed(0)
    with use_max_parameters(10**12):
        second = zoo.build(SMALL).state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.state_dict().items())


def test_the_limit_is_set_by_a_variable_and_an_option(monkeypatch, capsys):
    parameters = sum(p.numel() for p in zoo.build("mambair_tiny_x2").parameters())
    with use_max_parameters(parameters + 3):  # the mean colour counts, too
        zoo.build("mambair_tiny_x2")
    with (
        use_max_parameters(parameters),
        pytest.raises(RecipeError, match="--max-parameters or ZOO"),
    ):
        zoo.build("mambair_tiny_x2")
    monkeypatch.setenv(VARIABLE, "1000")
    assert main(["show", "mambair_tiny_x2"]) == 2
    assert "more than 1,299 parameters (0.0 GB)" in capsys.readouterr().err
    assert main(["show", "mambair_tiny_x2", "--max-parameters", "10000000"]) == 0
    assert max_parameters() == 1000 and os.environ[VARIABLE] == "1000"
    for text in ("0", "-1", "1e9", "", "²", "9" * 30):
        monkeypatch.setenv(VARIABLE, text)
        with pytest.raises(ZooError, match="it must be a positive integer"):
            zoo.build("mambair_tiny_x2")
        assert main(["show", "mambair_tiny_x2", f"--max-parameters={text}"]) == 2
        assert "--max-parameters" in capsys.readouterr().err


def test_a_network_without_memory_has_the_same_limit():
    """Tools build on the meta device to read shapes, and a row of blocks takes time there too."""
    with torch.device("meta"):
        assert all(p.is_meta for p in zoo.build(SMALL).parameters())
        with pytest.raises(RecipeError, match="too much for the limit of 250,000,000 parameters"):
            zoo.build(SMALL, dim=4000, depths=[6] * 6)


@pytest.mark.parametrize("model", ["mambairv2_tiny_x2", "mambacsr_tiny_x2", "qmambabsr_tiny"])
def test_a_network_without_memory_has_the_shapes_and_types_of_one_with_it(model):
    def sizes(network):
        return {
            name: (tensor.shape, tensor.dtype)
            for name, tensor in (*network.named_parameters(), *network.named_buffers())
        }

    with torch.device("meta"):
        found = zoo.build(model)
    assert sizes(found) == sizes(zoo.build(model))


def test_a_part_that_cannot_be_built_without_memory_is_built_all_the_same():
    @zoo.register("branch", "measured")
    class Measured(Branch):
        def __init__(self, dim: int, *, width: int = 2, at: Literal["a"] = "a") -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.full((dim,), float(torch.ones(width).sum())))
            self.factor = [1, 2, 3][width]

        def forward(self, x_BHWC):
            return x_BHWC * self.weight

    network = zoo.build(SMALL, **{"block.branch": "measured"})
    assert network.groups[0].blocks[0].branch.weight[0].item() == 2
    for width, reason in ((0, None), (7, "IndexError: list index"), (-1, "RuntimeError: Trying")):
        if reason:
            with pytest.raises(RecipeError, match=rf"network\.block\.branch: .*{reason}"):
                zoo.build(SMALL, **{"block.branch": {"type": "measured", "width": width}})


@pytest.mark.parametrize("number", [0, -1])
def test_every_integer_of_every_part_is_checked(number):
    """Whatever is built must also run: no division by zero, no empty tensor."""
    swept = 0
    for kind in ("branch", "merge", "block", "mixer", "head", "aligner", "burst_fusion", "network"):
        for entry in kinds()[kind].entries():
            for option, parameter in entry.options(kinds()[kind].supplied).items():
                annotation = str(parameter.annotation)
                if "int" in annotation and "Sequence" not in annotation:
                    _check_integer(kind, entry.name, option, number)
                    swept += 1
    assert swept > 30


def _check_integer(kind, name, option, number):
    part = {"type": name, option: number}
    single = {**SMALL["network"], "scale": 1 if name == "residual" else 2}
    network = {
        "branch": {**single, "block": {"branch": part}},
        "merge": {**single, "block": {"mixer": {"merge": part}}},
        "block": {**single, "block": part},
        "mixer": {**single, "block": {"mixer": part}},
        "head": {**single, "head": part},
        "aligner": {**BURST, "burst": 2, "stages": [1], "align": part},
        "burst_fusion": {**BURST, "burst": 2, "stages": [1], "fusion": part},
        "network": {"single_image": single, "unet": UNET, "burst": BURST}.get(name, {}) | part,
    }[kind]
    try:
        built = zoo.build({"network": network}).eval()
    except RecipeError:
        return
    with torch.no_grad():
        image = built.example(8, 8)
        assert torch.isfinite(built(image)).all(), f"{kind}/{name}: {option} = {number}"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (5, "a recipe is the name of a model, a path or a mapping, not int"),
        ("m" * 5000, "unknown model 'm+"),
        ("a\0.yaml", "cannot read the recipe: embedded null"),
        ("/", "unknown model '/'"),
        ({"network": {1: 2}}, "recipe: network: the key 1 is not text"),
        ({"network": SMALL["network"], "extends": 5}, "'extends' must name a recipe, got 5"),
        ({"network": SMALL["network"], "name": ["x" * 999]}, "name: expected text"),
    ],
)
def test_sources_that_are_no_recipe(source, message):
    with pytest.raises(RecipeError, match=message):
        zoo.build(source)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ". .", "../../tmp/x", "/tmp/x", "a/b", "a\\b", "C:x", "a\nb", "a\0",
     "x" * 201, "鉄" * 70],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_is_refused(name):
    with pytest.raises(RecipeError, match=r"name is '.*'; files are named after it, so") as error:
        load_recipe({**SMALL, "name": name})
    assert len(str(error.value)) < 500 and str(error.value).isprintable()


@pytest.mark.parametrize("name", ["my photos (2), v1.5", "鉄", ".hidden", "x" * 200])
def test_a_name_may_be_that_of_any_file(name):
    assert load_recipe({**SMALL, "name": name}).name == name


def test_files_that_are_no_recipe(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    for name in ("folder.yaml", "pipe.yaml"):
        with pytest.raises(RecipeError, match=f"{name}: cannot read the recipe: it is not a file"):
            zoo.build(tmp_path / name)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(RecipeError, match=r"bytes\.yaml: not a text file"):
        zoo.build(tmp_path / "bytes.yaml")


def test_a_recipe_may_have_the_name_of_the_published_one_that_it_extends(tmp_path, monkeypatch):
    path = tmp_path / "mambair_tiny_x2.yaml"
    path.write_text("extends: mambair_tiny_x2\nnetwork: {dim: 36}")
    recipe = load_recipe(path)
    assert recipe.name == "mambair_tiny_x2" and recipe.network["dim"] == 36
    monkeypatch.chdir(tmp_path)
    path.write_text("extends: ./mambair_tiny_x2.yaml")
    with pytest.raises(RecipeError, match="circular"):
        load_recipe(path)


def test_a_long_chain_of_recipes_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for index in range(40):
        (tmp_path / f"r{index}.yaml").write_text(f"extends: r{index + 1}.yaml")
    with pytest.raises(RecipeError, match="leads through more than 16 files"):
        load_recipe("r0.yaml")


def test_a_recipe_from_a_file_of_weights_names_no_path(tmp_path):
    (tmp_path / "base.yaml").write_text("network: {type: unet}")
    data = self_contained({"extends": "mambair_tiny_x2", "name": "mine"})
    assert "extends" not in data and data["name"] == "mine" and data["network"]["dim"] == 48
    for base in (str(tmp_path / "base.yaml"), "base.yaml", "../mambair_tiny_x2", 5, ["x"], {}):
        with pytest.raises(RecipeError, match="can only extend a published one"):
            self_contained({"extends": base})
    with pytest.raises(RecipeError, match="a recipe is a mapping"):
        self_contained([1])


@pytest.mark.parametrize(
    "network", [SMALL["network"], UNET, {**SMALL["network"], "channels": 1}], ids=str
)
def test_a_network_refuses_images_of_other_shapes(network):
    built = zoo.build({"network": network})
    wrong = 1 if built.channels == 3 else 3
    for shape in ((1, wrong, 8, 8), (built.channels, 8, 8), (8, 8), (1, 1, built.channels, 8, 8)):
        with pytest.raises(ZooError, match=rf"has shape \(B, {built.channels}, H, W\), not \("):
            built(torch.rand(shape))
    with pytest.raises(ZooError, match=r"the dtype torch\.uint8; convert it to float32"):
        built(torch.zeros(1, built.channels, 8, 8, dtype=torch.uint8))


class Dispatched(TorchDispatchMode):
    """Notes what PyTorch computes."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


WITHOUT_VALUES = {
    "absolute": lambda t: t.abs(), "limited": lambda t: t.clamp_(0, 1),
    "copied": lambda t: t.copy_(t), "normal from uniform": lambda t: t.erfinv_(),
    "exponential": lambda t: t.exp(), "exponential less 1": torch.expm1,
    "filled": lambda t: t.fill_(1), "logarithm": lambda t: t.log(),
    "logarithm of 1 more": lambda t: t.log1p(), "negative": lambda t: -t,
    "no value": lambda t: t.zero_(), "sum": lambda t: 1 + t, "quotient": lambda t: t / 2,
    "product": lambda t: 2 * t, "power": lambda t: t**2, "inverse": lambda t: 2 / t,
    "difference": lambda t: t - 1, "complement": lambda t: 1 - t,
    "true quotient": lambda t: t.true_divide(2), "normal": lambda t: t.normal_(),
    "uniform": lambda t: t.uniform_(), "like it": torch.rand_like,
    "normal like it": torch.randn_like,
    "init constant": lambda t: torch.nn.init.constant_(t, 1), "init ones": torch.nn.init.ones_,
    "init zeros": torch.nn.init.zeros_, "init normal": torch.nn.init.normal_,
    "init uniform": torch.nn.init.uniform_, "init trunc normal": torch.nn.init.trunc_normal_,
    "init kaiming": torch.nn.init.kaiming_normal_, "init xavier": torch.nn.init.xavier_uniform_,
    "init kaiming uniform": torch.nn.init.kaiming_uniform_,
}  # fmt: skip


@pytest.mark.parametrize("call", WITHOUT_VALUES.values(), ids=WITHOUT_VALUES)
def test_the_check_of_the_size_computes_no_values(call):
    with torch.no_grad(), torch.device("meta"):
        tensor = torch.empty(3, 4, dtype=torch.float64)
        with Dispatched() as seen, _NoValues():
            found = call(tensor)
    assert seen.names <= {"aten.empty.memory_format"}
    assert (found.shape, found.dtype) == ((3, 4), torch.float64)


def test_a_network_has_so_many_tensors_and_no_more():
    def made(count):
        return torch.nn.ParameterList([torch.nn.Parameter(torch.empty(1)) for _ in range(count)])

    assert len(build_within_limit(lambda: made(5000))) == 5000
    with pytest.raises(RecipeError, match="it has more than 5,000 tensors"):
        build_within_limit(lambda: made(5001))


@pytest.mark.parametrize("of", ["burst", "single_image", "wavelet"])
def test_one_channel_of_features_is_enough(of):
    sizes = {
        "burst": {**BURST, "align": "none", "fusion": "concat", "stages": [1], "body.heads": 1},
        "single_image": {"depths": [1], "block": {"type": "bare", "mixer": "mamba1d"}},
        "wavelet": {"depths": [1], "high_depths": [1], "block": "bare"},
    }
    assert zoo.build({"network": {"type": of}}, **{**sizes[of], "type": of, "dim": 1}).shallow


def test_the_check_of_the_size_keeps_shapes_and_types():
    with torch.device("meta"), Dispatched() as seen, _NoValues():
        torch.rand(2, 3), torch.randn(2), torch.arange(7)
    assert seen.names == {"aten.empty.memory_format"}
    with torch.device("meta"), _NoValues():
        a, b = torch.rand(2, 1, 4, dtype=torch.float64), torch.randn(3, 1, dtype=torch.float16)
        assert (a.shape, a.dtype) == ((2, 1, 4), torch.float64)
        assert (b.shape, b.dtype) == ((3, 1), torch.float16)
        assert (a * b).shape == (b * a).shape == (2, 3, 4)
        assert (a[:1] + torch.rand(4)).shape == (1, 1, 4)  # axes that are missing are of 1
        assert (a - b).dtype == torch.float64 and a.mul_(b[:1]) is a
        assert torch.arange(7).shape == torch.arange(1, 15, 2).shape == (7,)
        assert torch.arange(7).dtype == torch.int64
        assert torch.arange(7, dtype=torch.float16).dtype == torch.float16
        assert torch.arange(0.0, 1.0, 0.25).shape == (4,)
        assert torch.zeros(2, 3).sum(1).shape == (2,)
        assert torch.normal(0.0, 1.0, (2, 3)).shape == (2, 3)


def test_the_check_of_the_size_loads_nothing_large():
    """SymPy, which PyTorch loads for the meta device, would take a second in every command."""
    names = ["mambair_tiny_x2", "mambacsr_tiny_x2", "qmambabsr_tiny"]
    program = f"import sys, zoo; [zoo.build(n) for n in {names}]; print('sympy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert found.stdout.split() == [b"False"]
