"""Weights that the authors have released: where they are, and getting them.

The names of files are those in the authors' options and README (csguoh/MambaIR, commit 33d7b34). No
address could be tried where this was written; a file is taken only if it is that of the network.
"""

from __future__ import annotations

import http.client
import importlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from zoo.checkpoints.detection import detect
from zoo.checkpoints.hub import PREFIX, Address, fetched, files_of
from zoo.checkpoints.unheld import computes_the_same
from zoo.checkpoints.web_files import cached, download_url, is_as_noted, keep_note, remove
from zoo.errors import CheckpointError, ZooError, nearest, reason_of
from zoo.files import cache_folder, check_writable, partial_file
from zoo.recipe import build
from zoo.shipped import list_models, shipped_weights

REPO = "cguoh/MambaIR"
"""The authors' repository on the Hugging Face Hub."""

RELEASE = "https://github.com/csguoh/MambaIR/releases/download/v1.0"
"""Files of MambaIRv2."""

PAGE = "https://github.com/csguoh/MambaIR#model_summary"
"""The authors' table of weights, with links to Google Drive."""

DRIVE = "https://drive.google.com/uc?id="


@dataclass(frozen=True)
class Released:
    """Where the weights of a model are.

    Attributes:
        pattern: what the name of the file on the Hub looks like; case does not matter.
        file: name of the file in the authors' release; None if it is not there.
        drive: identity of the file on Google Drive; None if it is not there.
    """

    pattern: str
    file: str | None = None
    drive: str | None = None


def _v1(pattern: str, drive: str) -> Released:
    return Released(rf"^(?!.*v2).*{pattern}", drive=drive)


def _v2(pattern: str, file: str) -> Released:
    return Released(rf"v2.*{pattern}", file=f"mambairv2_{file}.pth")


RELEASED: dict[str, Released] = {
    "mambair_classic_x2": _v1(r"(?<!light)(?<!real)sr_?x?2", "11Kiy_0hmMyDjMvW7MmbUT6tO9n5JrDeB"),
    "mambair_classic_x3": _v1(r"(?<!light)(?<!real)sr_?x?3", "1u0VcESEduHu-GBCC6vDGQt9qXSX2AKdn"),
    "mambair_classic_x4": _v1(r"(?<!light)(?<!real)sr_?x?4", "1YXggWIsi-auCjmPQDvW9FjB1f9fZK0hN"),
    "mambair_light_x2_gen_b": _v1(r"light(sr)?_?x?2", "1eWovtH7YvEn2Bm9wBK5REOhbIgapsLxM"),
    "mambair_light_x3_gen_b": _v1(r"light(sr)?_?x?3", "1JoC3fwah5Xo0Z1s8DnmXQlsctKQjs1Hx"),
    "mambair_light_x4_gen_b": _v1(r"light(sr)?_?x?4", "1jIz579k_16569HFVF-76KgqAbJaJoDgF"),
    "mambair_realdn": _v1("real_?dn", "1iMcapgaT7VPfR2UFYy21KbX3rUHFJCU8"),
    "mambair_real_x4": _v1(r"real(_?sr)?(?!.*dn)", "16BBSRz1HellkTgypu4wu3CHA20CLgpSY"),
    "mambair_dn15": _v1("(dn|gu?a).*15", "1w5Y502iKSkqhP-OpleppPmk6PAnvWPdr"),
    "mambair_dn25": _v1("(dn|gu?a).*25", "1qSPy6B7Jvi7PDHM1fl8Q88kn7ckwtusK"),
    "mambair_dn50": _v1("(dn|gu?a).*50", "1O2o9xPruX8MtUL4qmuxV4Vfsef8L_jLM"),
    "mambair_car10": _v1("(car|j[ep]+g).*10", "1kncutEIAq9MvD8w6If6VZD7hkRkRcXWr"),
    "mambair_car30": _v1("(car|j[ep]+g).*30", "1hIIJQR59XmizMapxLOWtihhF3R7prYu3"),
    "mambair_car40": _v1("(car|j[ep]+g).*40", "1XbuIsLuCtwV78cVMYLuWXm-hNQDsbn6M"),
    **{f"mambairv2_light_x{s}": _v2(rf"light.*{s}", f"lightSR_x{s}") for s in (2, 3, 4)},
    **{
        f"mambairv2_{size.lower()}_x{s}".replace("_base", ""): _v2(
            rf"sr_?{size}.*{s}", f"classicSR_{size}_x{s}"
        )
        for size in ("Small", "Base", "Large")
        for s in (2, 3, 4)
    },
    "mambairv2_dn15": _v2("(dn|gu?a).*15", "ColorDN_15"),
    **{f"mambairv2_car{q}": _v2(rf"(car|j[ep]+g).*{q}", f"jpeg_q{q}") for q in (10, 30, 40)},
}
"""Models with released weights, by name."""


def download(name: str, target: Path) -> str:
    """Get the released weights of a model.

    Args:
        name: name of the model.
        target: file to write; a file beside it, with ``.json`` added, keeps its source and hash.

    Returns:
        Where they were found.

    Raises:
        CheckpointError: if none were released, or those that were found are of another network.
        WriteError: if ``target`` cannot be written; nothing is asked of a server then.
        ZooError: if no source answers; the message says what each said.
    """
    if name not in RELEASED:
        raise CheckpointError(_unknown(name))
    check_writable(target)
    faults: list[str] = []
    for source, path in _found(name, faults):
        fault = _of_another_network(name, path)
        if fault:
            faults.append(f"{source}: {fault}")
            continue
        with partial_file(target) as temporary:
            shutil.copyfile(path, temporary)
        keep_note(target, model=name, source=source)
        return source
    raise ZooError(f"{name}: no weights could be had ({'; '.join(faults)}); get them from {PAGE}")


def _unknown(name: str) -> str:
    """Say why there are no weights to download for a name."""
    if name in shipped_weights():
        return f"the weights of {name} ship with the package; zoo restore takes -n {name}"
    if name in list_models():
        kin = [one for one in RELEASED if one.partition("_")[0] == name.partition("_")[0]]
        return (
            f"no released weights of {name} are known here; get them from its authors' page"
            f"{nearest(name, kin) if kin else ''}"
        )
    return f"no weights are known for {name!r}{nearest(name, RELEASED)}"


def is_there(name: str, target: Path) -> bool:
    """Whether a file is one that :func:`download` wrote for a model, unchanged."""
    return is_as_noted(target, model=name)


def _found(name: str, faults: list[str]) -> Iterator[tuple[str, Path]]:
    """Yield each source that answers, with the file; what the others say goes to ``faults``."""
    released = RELEASED[name]
    if find_spec("huggingface_hub") is None:
        faults.append("the Hub needs huggingface_hub: pip install huggingface_hub")
    else:
        try:
            names = files_of(Address(REPO, "", None))
            fitting = [one for one in names if re.search(released.pattern, one, re.IGNORECASE)]
            if not fitting:
                faults.append(f"{PREFIX}{REPO} has no file of such a name")
            for one in fitting:
                yield f"{PREFIX}{REPO}/{one}", fetched(f"{PREFIX}{REPO}/{one}")
        except ZooError as error:
            faults.append(str(error))
    folder = cache_folder() / "released" / name
    if released.file is not None:
        url = f"{RELEASE}/{released.file}"
        try:
            path = cached(folder / released.file, url, download_url)
            yield url, path
            remove(path)  # it was not taken
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            faults.append(f"{url}: {reason}")
    if released.drive is not None and find_spec("gdown") is None:
        faults.append("Google Drive needs gdown: pip install gdown")
    elif released.drive is not None:
        url = f"{DRIVE}{released.drive}"
        try:
            path = cached(folder / f"{name}.pth", url, _download_drive)
            yield url, path
            remove(path)
        except Exception as error:  # gdown raises errors of many libraries
            faults.append(f"Google Drive: {reason_of(error)}")


def _download_drive(url: str, path: Path) -> None:
    importlib.import_module("gdown").download(url, str(path), quiet=True)


def _of_another_network(name: str, path: Path) -> str | None:
    """Say what is wrong with a file of weights, or return None if they are the model's."""
    try:
        found = detect(path, as_published=True)
    except CheckpointError as error:
        return str(error)
    with torch.device("meta"):
        if computes_the_same(build(name), build(found)):
            return None
    return f"{path.name} holds another network than {name}"
