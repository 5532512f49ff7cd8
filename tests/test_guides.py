"""Networks that see further images: a network from outside the package, from training to a file."""

from __future__ import annotations

import io
import json

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn

import zoo
from export.model import Source, facts_of
from export.onnx import export
from export.verify import verify
from recipes.evaluate import main as evaluate
from recipes.train import main as train
from tests.helpers.graphs import FACTS, two_scans
from zoo.cli import main
from zoo.data import Bicubic, Photo, read_photo, write_photo
from zoo.data.pixels import dequantise
from zoo.data.testsets import _guide_folder
from zoo.errors import ImageError, RecipeError, ZooError
from zoo.evaluation import Protocol
from zoo.inference import RestoreSettings, restore, restore_tensor
from zoo.inference.guides import GuideFiles, GuidesInMemory
from zoo.integrations.exported import guides_in
from zoo.integrations.onnxruntime import load_onnx
from zoo.networks import Guide, Network
from zoo.training.photo_task import PhotoTask
from zoo.training.settings import DataSettings


class Sharpener(Network):
    """The image enlarged, its details from a sharp gray guide of the output's size, and a map."""

    def __init__(self, *, scale: int = 2, name: str = "pan"):
        super().__init__()
        self.scale, self.channels = scale, 3
        self.guides = {name: Guide(channels=1, scale=scale), "map": Guide(channels=3)}
        self.image = nn.Conv2d(3, 3, 1)
        self.pan = nn.Conv2d(1, 3, 1)

    def forward(self, image_BIHW, pan_B1HW, map_B3HW):
        self.check_image(image_BIHW, pan_B1HW, map_B3HW)
        seen = self.image(image_BIHW) * map_B3HW
        larger = seen.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)
        return larger + self.pan(pan_B1HW)


@pytest.fixture(autouse=True)
def registered():
    zoo.register("network", "sharpener")(Sharpener)


@pytest.fixture
def network():
    return zoo.build({"network": {"type": "sharpener"}}).eval()


NETWORKS = {
    "outside": "{type: sharpener}",
    "groups": (
        "{type: single_image, scale: 2, dim: 8, depths: [1], block: res, guides: {pan: {channels: "
        "1, scale: 2}, map: {channels: 3}}}"
    ),
}


@pytest.fixture
def recipe(tmp_path, request):
    path = tmp_path / "sharp.yaml"
    text = NETWORKS[getattr(request, "param", "outside")]
    path.write_text(f"network: {text}\ntrain: {{iterations: 2, data: {{patch: 4}}}}\n")
    return path


def folders(root, names=("0", "1")):
    """Clean photos of an odd width, degraded ones, and both guides, in folders of test sets."""
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        for folder, (height, width) in {"hr": (20, 25), "pan": (20, 25), "map": (10, 12)}.items():
            pixels = rng.random((height, width, 1 if folder == "pan" else 3), dtype=np.float32)
            write_photo(root / folder / f"{name}.png", Photo(pixels))
            if folder == "map":
                write_photo(root / "input" / f"{name}x2.png", Photo(pixels[::-1].copy()))
    return root


def expected(network, root, name="0"):
    """What the network makes of the files of one image."""
    read = [
        read_photo(root / f"{part}.png").color_HWC for part in (f"input/{name}x2", f"map/{name}")
    ]
    image, of_map = (torch.from_numpy(pixels).permute(2, 0, 1)[None] for pixels in read)
    pan = read_photo(root / "pan" / f"{name}.png").color_HWC[:, :24]
    with torch.no_grad():
        return network(image, torch.from_numpy(pan).permute(2, 0, 1)[None], of_map).clamp(0, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pan, of_map: (), r"got 0 guides, .*pan \(1 channel, 2 times the size\); map \(3"),
        (lambda pan, of_map: (pan,), "got 1 guides"),
        (lambda pan, of_map: (pan[..., 1:], of_map), r"the guide pan .* \(1, 1, 8, 10\), not"),
        (lambda pan, of_map: (pan, of_map[:, :1]), r"the guide map .* \(1, 3, 4, 5\), not"),
        (lambda pan, of_map: (pan, of_map.int()), "the guide map has the dtype torch.int32"),
    ],
    ids=["none", "one", "size", "channels", "dtype"],
)
def test_a_guide_that_is_missing_or_does_not_fit_is_named(network, change, message):
    image, *guides = network.example_inputs(4, 5)
    with pytest.raises(ImageError, match=message):
        network.check_image(image, *change(*guides))
    with pytest.raises(ImageError, match=message):
        restore_tensor(network, image, guides=change(*guides))


def test_a_guide_is_told_by_its_channels_and_its_size_if_that_is_another():
    told = {Guide(channels=1): "1 channel", Guide(channels=2): "2 channels"}
    told[Guide(channels=3, scale=4)] = "3 channels, 4 times the size"
    assert {str(guide): words for guide, words in told.items()} == {w: w for w in told.values()}


def test_a_guide_has_channels_a_size_and_a_name_of_its_own():
    with pytest.raises(ValueError, match="scale is 0"):
        Guide(channels=1, scale=0)
    with pytest.raises(RecipeError, match="'input' cannot be the name of a guide"):
        zoo.build({"network": {"type": "sharpener", "name": "input"}})


def test_tiles_and_turns_take_the_guides_along(network):
    """A network of single pixels, whose tiles and turns must give exactly the whole."""
    image, *guides = (torch.rand_like(tensor) for tensor in network.example_inputs(11, 13))
    with torch.no_grad():
        whole = network(image, *guides).clamp(0, 1)
    for settings in (RestoreSettings(tile=5, overlap=2), RestoreSettings(tile=0, ensemble=True)):
        torch.testing.assert_close(restore_tensor(network, image, settings, guides=guides), whole)


@pytest.mark.parametrize("recipe", NETWORKS, indirect=True)
def test_a_network_with_guides_trains_validates_restores_and_is_evaluated(recipe, tmp_path, capsys):
    root = folders(tmp_path / "set")
    told = [f"data.photos={root}/hr", f"data.degraded={root}/input", f"data.validate={root}/hr"]
    told += [f"data.validate_degraded={root}/input"]
    for name in ("pan", "map"):
        told += [f"data.guides.{name}={root}/{name}", f"data.validate_guides.{name}={root}/{name}"]
    run = tmp_path / "run"
    assert train([str(recipe), *told, "-o", str(run), "--num-workers", "0"]) == 0
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    [validated] = [line for line in lines if "psnr" in line]
    weights = run / "weights.safetensors"
    trained = zoo.load(weights)

    guides = ["--guide", f"pan={root}/pan", "--guide", f"map={root}/map"]
    words = ["restore", f"{root}/input", "-o", str(tmp_path / "out"), "-w", str(weights)]
    assert main([*words, *guides]) == 0
    for name in ("0", "1"):
        found = read_photo(tmp_path / "out" / f"{name}x2.png").color_HWC
        wanted = expected(trained, root, name)[0].permute(1, 2, 0).numpy()
        assert np.abs(found - wanted).max() <= 0.51 / 255

    words = [str(recipe), "-w", str(weights), "--data", str(root), "-o", str(tmp_path / "scores")]
    assert evaluate(words) == 0
    assert f"{validated['psnr']:.2f}" in capsys.readouterr().out


@pytest.mark.parametrize("memory", [4.0, 0.0])
def test_guides_of_8_bits_have_their_own_range_beside_bands(network, tmp_path, memory):
    """The range of reflectances made them black; guides in floating point share it."""
    names, stated = ("clean", "pan", "map"), (0.0, 10000.0)
    for name in names:
        (tmp_path / name).mkdir()
    np.save(tmp_path / "clean" / "0.npy", np.full((20, 20, 3), 2500, np.float32))
    np.save(tmp_path / "map" / "0.npy", np.full((10, 10, 3), 5000, np.float32))
    pan = np.full((20, 20, 1), 102 / 255, np.float32)
    write_photo(tmp_path / "pan" / "0.png", Photo(pan))
    expected = {"pan": 0.4, "map": 0.5}

    folders_of = {name: str(tmp_path / name) for name in expected}
    settings = DataSettings(
        photos=str(tmp_path / "clean"), validate=str(tmp_path / "clean"), patch=4, memory=memory,
        range=stated, degradation=Bicubic, guides=folders_of, validate_guides=folders_of,
    )  # fmt: skip
    task = PhotoTask(settings, network, protocol=Protocol(), iterations=1, seed=0)
    [tested] = task.validation
    files = GuideFiles(network, folders_of, tmp_path / "clean" / "0.npy", stated)
    small = Photo(np.zeros((10, 10, 3), np.float32))
    seen = zip(
        expected.items(), task.guides, tested.read_guides(),
        files.of(tmp_path / "clean" / "0.npy", small), strict=True,
    )  # fmt: skip
    for (name, value), trained, scored, restored in seen:
        pixels = dequantise(trained.photos[0].pixels_HWC)
        for found in (pixels, scored, restored.numpy()):
            np.testing.assert_allclose(found, value, atol=1e-6, err_msg=name)
    assert tested.read_clean().unique().tolist() == [0.25]


def test_guides_of_one_image_are_files_or_folders(network, tmp_path):
    root = folders(tmp_path)
    image = root / "input" / "0x2.png"
    wanted = expected(network, root)[0].permute(1, 2, 0).numpy()
    for given in ({"pan": root / "pan" / "0.png", "map": root / "map"}, {"pan": root / "pan"}):
        files = {"map": str(root / "map" / "0.png"), **given}
        [written] = restore(network, image, tmp_path / "out.png", guides=files, overwrite=True)
        assert np.abs(read_photo(written).color_HWC - wanted).max() <= 0.51 / 255


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pan": "pan"}, "needs the guide map .* --guide map=PATH"),
        ({"pan": "pan", "map": "map", "x": "pan"}, "--guide x: the network takes pan, map"),
        ({"pan": "pan", "map": "hr"}, r"the guide map has 25x20 pixels, but must have 12x10"),
        ({"pan": "other", "map": "map"}, r"x2\.png' has no pan counterpart with the same name"),
        ({"pan": "nowhere", "map": "map"}, "nowhere' does not exist"),
    ],
    ids=["missing", "unknown", "size", "name", "folder"],
)
def test_files_of_guides_that_do_not_fit_are_told(network, given, message, tmp_path):
    root = folders(tmp_path)
    folders(tmp_path / "more", names=("5",))
    (tmp_path / "more" / "pan").rename(root / "other")
    files = {name: root / folder for name, folder in given.items()}
    with pytest.raises(ZooError, match=message):
        restore(network, root / "input", tmp_path / "out", guides=files)


def test_a_test_set_that_is_the_folder_of_clean_images_names_the_folder_above(tmp_path):
    root = folders(tmp_path / "set")
    (root / "hr").rename(root / "other")
    (root / "target").mkdir()
    with pytest.raises(
        ImageError, match=r"next to .* clean images; name '.*set', the folder above"
    ):
        _guide_folder(root / "target", "map")


def test_targets_that_take_no_guides_are_refused_before_the_tracing(
    network, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("export.serve.network_of", lambda *a: Source(network, "random"))
    monkeypatch.setattr("export.onnx.network_of", lambda *a: Source(network, "random"))
    output = ["-n", "mine", "-o", str(tmp_path / "new.onnx")]
    for command in (["serve", *output], ["onnx", *output, "--for", "tensorrt"]):
        assert main(["export", *command]) == 2
        assert "not for a network with guides" in capsys.readouterr().err
    assert not (tmp_path / "new.onnx").exists()


def test_options_of_guides_are_read_from_words(tmp_path, capsys):
    for words, message in (
        (["pan"], "--guide pan: write NAME=PATH"),
        (["pan=a", "pan=b"], "--guide pan is given twice"),
        (["pan=a"], "--guide pan: the network takes no guide"),
        (["bursts=a"], "--guide bursts: the network takes no guide"),
    ):
        given = [word for value in words for word in ("--guide", value)]
        name = ["-n", "qmambabsr_tiny" if words == ["bursts=a"] else "mambair_tiny_x2"]
        assert main(["restore", "a.png", "-o", str(tmp_path / "b.png"), *name, *given]) == 2
        assert message in capsys.readouterr().err


def test_bundled_photos_and_test_sets_without_guides_are_refused(recipe, network, tmp_path, capsys):
    zoo.save(network, tmp_path / "w.safetensors")
    words = [str(recipe), "-w", str(tmp_path / "w.safetensors")]
    assert evaluate(words) == 2
    assert "the bundled photos have no guides" in capsys.readouterr().err
    root = folders(tmp_path / "set")
    (root / "map").rename(root / "away")
    assert evaluate([*words, "--data", str(root)]) == 2
    assert "needs the folder 'map' of guides" in capsys.readouterr().err


def test_an_exported_file_has_an_input_for_each_guide(network, tmp_path):
    path = export(network, tmp_path / "sharp.onnx")
    report = verify(network, path)
    assert report.passed and len(report.comparisons) == 3
    opened = load_onnx(path)
    assert opened.guides == network.guides
    assert [entry.name for entry in opened.session.get_inputs()] == ["input", "pan", "map"]
    image, *guides = network.example_inputs(9, 6)
    found = restore_tensor(opened, image, RestoreSettings(tile=4, overlap=1), guides=guides)
    torch.testing.assert_close(found, restore_tensor(network, image, guides=guides))


def test_what_has_guides_becomes_no_engine(recipe, network, tmp_path, monkeypatch, capsys):
    model = two_scans()
    guides = facts_of(network, "")["guides"]
    onnx.helper.set_model_props(model, {**FACTS, "guides": guides})
    onnx.save(model, tmp_path / "a.onnx")
    words = ["--onnx", str(tmp_path / "a.onnx"), "-o", str(tmp_path / "a.engine")]
    monkeypatch.setattr("export.trt.open_tensorrt", lambda name: None)
    assert main(["export", "trt", *words]) == 2
    assert "a.onnx: not for a network with guides, such as pan" in capsys.readouterr().err
    assert main(["export", "trt", "-n", str(recipe), *words[2:]]) == 2
    assert "sharp.yaml: not for a network with guides, such as pan" in capsys.readouterr().err


def test_what_takes_no_guides_says_so(network, tmp_path):
    with pytest.raises(ZooError, match="--precision int8: not for a network with guides, such as"):
        export(network, tmp_path / "sharp.onnx", precision="int8")
    facts = facts_of(network, "")
    assert json.loads(facts["guides"]) == {"pan": [1, 2], "map": [3, 1]}
    assert guides_in(facts) == network.guides and guides_in({}) == {}
    for damaged in ("[", "[1]", '{"pan": 3}', '{"pan": [0, 1]}', '{"pan": ["a", 1]}'):
        with pytest.raises(ZooError, match="guides are damaged"):
            guides_in({"guides": damaged})


def test_the_description_of_a_model_lists_its_guides(recipe):
    told = str(zoo.describe(str(recipe)))
    assert "guide       pan: 1 channel, 2 times the size" in told


def test_a_guide_without_data_is_refused(network, tmp_path):
    root = folders(tmp_path)
    pan = np.full((20, 25), 0.5, np.float32)
    pan[3, 4] = np.nan
    np.save(root / "pan.npy", pan)
    guides = {"pan": root / "pan.npy", "map": root / "map" / "0.png"}
    with pytest.raises(ImageError, match=r"pan\.npy' has 1 pixels without data"):
        restore(network, root / "input" / "0x2.png", tmp_path / "o.png", guides=guides)


def in_memory(kind, pixels_HWC):
    """An 8-bit image of a kind that :func:`zoo.restore` takes."""
    if kind == "tensor":
        return torch.from_numpy(pixels_HWC).movedim(-1, 0)
    if kind == "array":
        return pixels_HWC[..., 0] if pixels_HWC.shape[2] == 1 else pixels_HWC
    image = Image.fromarray(pixels_HWC[..., 0] if pixels_HWC.shape[2] == 1 else pixels_HWC)
    if kind == "pil":
        return image
    if kind == "bytes":
        image.save(stream := io.BytesIO(), "PNG")
        return stream.getvalue()
    raise AssertionError(kind)


def of_memory(kind, restored):
    """The restored image as (H, W, C) uint8."""
    if kind == "tensor":
        return restored.movedim(0, -1).numpy()
    if kind == "bytes":
        return np.asarray(Image.open(io.BytesIO(restored)))
    return np.asarray(restored)


@pytest.fixture(scope="module")
def pixels():
    random = np.random.default_rng(3)
    sizes = {"image": (6, 5, 3), "pan": (12, 10, 1), "map": (6, 5, 3)}
    return {name: random.integers(0, 256, size, np.uint8) for name, size in sizes.items()}


@pytest.mark.parametrize("of_guide", ["tensor", "array", "pil", "bytes", "path"])
@pytest.mark.parametrize("of_image", ["tensor", "array", "pil", "bytes"])
def test_guides_in_memory_are_of_any_kind(network, pixels, of_image, of_guide, tmp_path):
    floats = [torch.from_numpy(p).movedim(-1, 0)[None] / 255 for p in pixels.values()]
    expected = restore_tensor(network, floats[0], guides=floats[1:])[0].movedim(0, -1).numpy()
    if of_guide == "path":
        for name in ("pan", "map"):
            (tmp_path / f"{name}.png").write_bytes(in_memory("bytes", pixels[name]))
        guides = {"map": str(tmp_path / "map.png"), "pan": tmp_path / "pan.png"}
    else:
        guides = {name: in_memory(of_guide, pixels[name]) for name in ("map", "pan")}
    found = restore(network, in_memory(of_image, pixels["image"]), guides=guides)
    assert np.abs(of_memory(of_image, found) - 255 * expected).max() <= 0.51


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA"])
def test_a_guide_of_pil_has_the_colours_that_it_shows(network, mode):
    """Gray where the mode is gray, without alpha, and not the numbers of a palette."""
    image = Image.new("1" if mode == "1" else "RGB", (10, 8), 1 if mode == "1" else "lime")
    image = image.quantize(4) if mode == "PA" else image
    image = image.convert(mode)
    [photo] = GuidesInMemory(network, {"pan": image, "map": image})._photos("pan")
    level = {"1": [1], "L": [150 / 255], "LA": [150 / 255]}.get(mode, [0, 1, 0])
    np.testing.assert_allclose(photo.color_HWC[3, 4], level, atol=0.003)
    assert photo.alpha_HW is None


def test_a_guide_may_be_a_tensor_of_a_network_of_any_precision(network):
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        tensor = torch.full((1, 8, 10), 0.25, dtype=dtype, requires_grad=True)
        guides = GuidesInMemory(network, {"pan": tensor, "map": tensor})
        for given in (tensor, tensor[None]):
            guides.given = {"pan": given}
            [photo] = guides._photos("pan")
            assert photo.color_HWC.shape == (8, 10, 1) and (photo.color_HWC == 0.25).all()


def test_a_batch_in_memory_has_a_guide_for_each_image(network):
    image, *guides = (torch.rand(2, *x.shape[1:]) for x in network.example_inputs(4, 5))
    named = dict(zip(("pan", "map"), guides, strict=True))
    found = restore(network, image, guides=named)
    torch.testing.assert_close(found, restore_tensor(network, image, guides=guides))
    one = {"pan": guides[0][0], "map": guides[1]}
    with pytest.raises(ImageError, match=r"2 images and 1 of the guide pan; give a tensor \(B, C"):
        restore(network, image, guides=one)


def test_floats_in_memory_have_the_range_of_the_image(network):
    """As in files: integers have their own range."""
    image = np.full((4, 5, 3), 2500, np.float32)
    guides = {"pan": np.full((8, 10), 102, np.uint8), "map": np.full((4, 5, 3), 5000, np.float64)}
    found = restore(network, image, guides=guides, value_range=(0, 10000))
    inputs = [torch.full((1, 3, 4, 5), 0.25), torch.full((1, 1, 8, 10), 0.4)]
    expected = restore_tensor(network, inputs[0], guides=(inputs[1], torch.full((1, 3, 4, 5), 0.5)))
    np.testing.assert_allclose(found / 10000, expected[0].movedim(0, -1).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pan": None}, r"needs the guide pan \(1 channel, 2 .*\); give it with guides={'pan': IM"),
        ({"x": 1}, "guides has 'x', but the network takes pan, map; leave it out"),
        ({"pan": 1}, "the guide pan is int; a guide is a NumPy array"),
        ({"pan": np.zeros((4, 5))}, "the guide pan has 5x4 pixels, but must have 10x8"),
        ({"map": np.zeros((4, 5, 2))}, "the guide map has 2 channels, but must have 3"),
        ({"pan": np.zeros((8, 10), complex)}, r"\(guide pan\).* values of type complex128"),
        ({"pan": np.full((8, 10), np.nan)}, r"\(guide pan\)' has no pixel with data"),
        ({"pan": np.full((8, 10), 7.0)}, r"\(guide pan\)' has values from 7 to 7; state which"),
        ({"pan": np.zeros((8, 10)) * [*[1] * 9, np.nan]}, r"\(guide pan\)' has 8 pixels without"),
        ({"pan": torch.zeros(8, 10)}, r"guide pan is a tensor of shape \(8, 10\)"),
        ({"pan": torch.zeros(1, 8, 10, device="meta")}, "on meta; it must be a dense tensor"),
        ({"pan": b"no image"}, r"\(guide pan\)' cannot be decoded"),
        ({"pan": "nowhere.png"}, "nowhere.png"),
    ],
)  # fmt: skip
def test_guides_in_memory_that_do_not_fit_are_told(network, change, message):
    guides = {"pan": np.zeros((8, 10)), "map": np.zeros((4, 5, 3)), **change}
    with pytest.raises(ZooError, match=message):
        restore(network, np.zeros((4, 5, 3)), guides=guides)


def test_guides_in_memory_are_not_for_files_or_other_networks(network, tmp_path):
    root = folders(tmp_path)
    given = {"pan": np.zeros((20, 24)), "map": root / "map" / "0.png"}
    with pytest.raises(ImageError, match="the guide pan of a file is ndarray; give the path"):
        restore(network, root / "input" / "0x2.png", tmp_path / "o.png", guides=given)
    with pytest.raises(ImageError, match="guides has 'pan', but the network takes no guide"):
        restore("mambair_tiny_x2", np.zeros((4, 4, 3)), guides={"pan": np.zeros((4, 4))})
