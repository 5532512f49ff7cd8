"""The Hugging Face Hub: publish networks, and load them by the methods that its users know.

    zoo.push(network, "me/my-mamba")
    network = zoo.load("hf:me/my-mamba")

    model = Pretrained.from_pretrained("me/my-mamba")  # from zoo.integrations.hub
    model.save_pretrained("folder")
    model.push_to_hub("me/other")

A repository has the weights (``model.safetensors``, in our format), the recipe (``config.json``)
and a model card (``README.md``).
"""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from zoo.checkpoints import load, save
from zoo.checkpoints.hub import PREFIX, STANDARD, explained, imported, is_address, parsed
from zoo.checkpoints.saving import unwrapped
from zoo.errors import CheckpointError
from zoo.networks import Network


def push(
    network: nn.Module,
    repo: str,
    *,
    private: bool = False,
    card: str = "",
    message: str = "Upload a network of the Mamba Restoration Zoo",
    revision: str | None = None,
) -> str:
    """Publish a network on the Hugging Face Hub, with its recipe and a model card.

    Args:
        network: a network that was built from a recipe.
        repo: owner and name of the repository, with or without ``hf:``; it is made if it does not
            exist.
        private: whether a new repository is private.
        card: text of the model card, in Markdown, after what is written for every network. The
            card of a repository that has one already stays, unless this is given.
        message: message of the commit.
        revision: branch to write to, made if it does not exist; None for the main branch.

    Returns:
        The address that :func:`zoo.load` takes.

    Raises:
        ZooError: if ``huggingface_hub`` is missing, or the Hub does not answer.
        CheckpointError: if the network has no recipe, or the name is none of a repository.
    """
    repo = repo.removeprefix(PREFIX)
    if repo.count("/") != 1:
        raise CheckpointError(f"{repo!r}: write OWNER/REPO, such as me/my-mamba")
    hub = imported()
    with tempfile.TemporaryDirectory() as folder, explained(hub, f"{PREFIX}{repo}"):
        _write(network, Path(folder), repo, card)
        api = hub.HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        if revision and not revision.startswith("refs/"):
            api.create_branch(repo, branch=revision, exist_ok=True)
        if not card and api.file_exists(repo, "README.md", revision=revision):
            (Path(folder) / "README.md").unlink()
        api.upload_folder(
            repo_id=repo, folder_path=folder, commit_message=message, revision=revision
        )
    place = f"@{revision}" if revision else ""
    return f"{PREFIX}{repo}{place}/{STANDARD}"


def _write(network: nn.Module, folder: Path, repo: str, card: str) -> None:
    """Write the files of a repository to a folder."""
    network = unwrapped(network)
    save(network, folder / STANDARD)
    data = network.recipe.data()
    (folder / "config.json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(model_card(network, repo, card), encoding="utf-8")


def model_card(network: Network, repo: str, text: str = "") -> str:
    """Return the model card of a network: what it does, how to use it, where it comes from.

    Args:
        network: a network that was built from a recipe.
        repo: the repository, for the example.
        text: Markdown to add at the end.
    """
    recipe = network.recipe
    parameters = sum(parameter.numel() for parameter in network.parameters())
    channels = "1 channel" if network.channels == 1 else f"{network.channels} channels"
    takes = "a burst of frames" if network.takes_burst else f"images of {channels}"
    paper = recipe.paper
    source = (
        f"\nPaper: {paper.title}" + (f", arXiv {paper.arxiv}" if paper.arxiv else "")
        if paper
        else ""
    )
    return (
        f"""---
library_name: mamba-restoration-zoo
pipeline_tag: image-to-image
tags:
- image-restoration
- mamba
---
# {recipe.name}

{recipe.summary or "A network for image restoration."}

{parameters:,} parameters; scale {network.scale}; takes {takes}, of any size.
{source}

```sh
zoo restore photo.png -o restored.png -w {PREFIX}{repo}
```

```python
import zoo

network = zoo.load("{PREFIX}{repo}")
```

{text}""".rstrip()
        + "\n"
    )


def _check_folder(source: str | Path, file: str) -> None:
    """Check that a source without the form of a repository's name is a folder with the file."""
    folder = Path(source)
    is_path = isinstance(source, Path) or folder.is_absolute() or len(folder.parts) > 2
    if folder.is_dir() and not (folder / file).is_file():
        raise CheckpointError(f"{folder}: the folder has no {file}; save_pretrained writes one")
    if is_path and not folder.is_dir():
        raise CheckpointError(
            f"{folder}: there is no such folder; give one that save_pretrained has written, or "
            "OWNER/REPO"
        )


@cache
def _pretrained() -> Any:
    """Return the class of networks with the methods of the Hub; its base class is from there."""
    hub = imported()

    class Pretrained(nn.Module, hub.ModelHubMixin):  # type: ignore[name-defined]
        """A network with ``from_pretrained``, ``save_pretrained`` and ``push_to_hub``.

        Args:
            restorer: the network, which is the attribute ``network``.
        """

        # No key of ``config.json`` has this name; the mixin would pass its value.
        def __init__(self, restorer: Network) -> None:
            super().__init__()
            self.network = restorer

        def forward(self, image_BIHW: Tensor, *guides: Tensor) -> Tensor:
            restored: Tensor = self.network(image_BIHW, *guides)
            return restored

        @classmethod
        def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Any:
            """Load a folder or a repository: ``OWNER/REPO``, or an address of ``zoo.load``.

            Args:
                pretrained_model_name_or_path: folder or repository. Without the name of a file, it
                    is ``model.safetensors``.
                options: those of the mixin, and options of the network.
            """
            source = pretrained_model_name_or_path
            if is_address(source):
                address = parsed(source)
                source = address.repo
                if address.revision:
                    options.setdefault("revision", address.revision)
                if address.file:
                    options.setdefault("file", address.file)
            _check_folder(source, options.get("file", STANDARD))
            return super().from_pretrained(source, **options)

        def push_to_hub(self, repo_id: str, **options: Any) -> Any:
            """Publish the network, as the mixin does; ``hf:`` before the name is left out."""
            return super().push_to_hub(repo_id.removeprefix(PREFIX), **options)

        def _save_pretrained(self, save_directory: Path) -> None:
            _write(self.network, save_directory, save_directory.name, "")

        @classmethod
        def _from_pretrained(
            cls,
            *,
            model_id: str,
            revision: str | None,
            cache_dir: str | Path | None,
            force_download: bool,
            local_files_only: bool,
            token: str | bool | None,
            file: str = STANDARD,
            **overrides: Any,
        ) -> Any:
            if (Path(model_id) / file).is_file():
                path = Path(model_id) / file
            else:
                with explained(hub, f"{PREFIX}{model_id}"):
                    path = hub.hf_hub_download(
                        model_id,
                        file,
                        revision=revision,
                        cache_dir=cache_dir,
                        force_download=force_download,
                        local_files_only=local_files_only,
                        token=token,
                    )
            return cls(load(path, **overrides))

    return Pretrained


def __getattr__(name: str) -> Any:
    if name != "Pretrained":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _pretrained()


__all__ = ["model_card", "push"]
