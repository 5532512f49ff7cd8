"""spandrel: load our networks in ComfyUI, chaiNNer and all else that loads models through it.

    import spandrel
    import zoo.integrations.spandrel as adapter

    adapter.install()
    model = spandrel.ModelLoader().load_from_file("MambaIR_lightSR_x4.pth")

spandrel recognises a file by the keys of its tensors and passes on nothing else. So what the
tensors do not show, such as scan orders, is taken to be as published. A file of :func:`zoo.save`
that would be misread so holds its recipe as one more tensor.

spandrel installs torchvision, which does not work with every build of torch. So it is an extra, and
nothing else in this package needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.checkpoints import OFFICIAL, detect, load
from zoo.checkpoints.embedded import KEY
from zoo.errors import CheckpointError, ZooError, pip_install
from zoo.networks import Network, SingleImage

OWN = "MambaRestorationZoo"
"""Identity of the architecture of files with our names; the others are those of the releases."""


def install(registry: Any = None) -> list[str]:
    """Add our architectures to a registry of spandrel; one that it has already stays as it is.

    They come before all others, some of which would take our files for their own.

    Args:
        registry: a ``spandrel.ArchRegistry``; None for ``spandrel.MAIN_REGISTRY``, which ComfyUI,
            chaiNNer and ``spandrel.ModelLoader()`` use.

    Returns:
        The identities of the architectures that were added.

    Raises:
        ZooError: if spandrel cannot be imported; the message gives the reason.
    """
    try:
        import spandrel
    except (ImportError, RuntimeError) as error:
        raise ZooError(
            f"spandrel cannot be imported ({error}); {pip_install('spandrel')}, with a torchvision "
            "built for the installed torch"
        ) from error
    registry = spandrel.MAIN_REGISTRY if registry is None else registry
    others = tuple(support.architecture.id for support in registry.architectures())
    added = registry.add(
        *(
            spandrel.ArchSupport.from_architecture(ours, before=others)
            for ours in _architectures(spandrel)
            if ours.id not in registry
        )
    )
    return [support.architecture.id for support in added]


def _architectures(spandrel: Any) -> list[Any]:
    """Return one architecture for each release of the authors, and one for files with our names."""

    class OurArchitecture(spandrel.Architecture):
        def load(self, state_dict: Mapping[str, Any]) -> Any:
            return _descriptor(spandrel, self, state_dict)

    return [
        *(OurArchitecture(id=release.name, detect=release.recognises) for release in OFFICIAL),
        OurArchitecture(id=OWN, name="Mamba Restoration Zoo", detect=is_ours),
    ]


def is_ours(state_dict: Mapping[str, Any]) -> bool:
    """Whether tensors have our names, and show or hold which network they belong to."""
    if KEY in state_dict:
        return True
    if "shallow.weight" not in state_dict or not any(key.endswith(".A_log") for key in state_dict):
        return False
    try:
        detect(state_dict, as_published=True)
    except CheckpointError:
        return False
    return True


def _descriptor(spandrel: Any, architecture: Any, state_dict: Mapping[str, Any]) -> Any:
    """Return a network in the terms of spandrel.

    Raises:
        ZooError: if the network takes a burst or guides, or cannot be told from the tensors.
    """
    network = load(state_dict, recipe=detect(state_dict, as_published=True))
    if network.takes_burst or network.guides:
        more = (
            "a burst of frames" if network.takes_burst else f"guides ({', '.join(network.guides)})"
        )
        raise ZooError(
            f"{network.recipe.name} takes {more}, and models of spandrel take one image; use "
            "zoo restore"
        )
    return spandrel.ImageModelDescriptor(
        network,
        network.state_dict(),
        architecture=architecture,
        purpose="Restoration" if network.scale == 1 else "SR",
        tags=_tags(network),
        supports_half="float16" in network.capabilities.dtypes,
        supports_bfloat16="bfloat16" in network.capabilities.dtypes,
        scale=network.scale,
        input_channels=network.channels,
        output_channels=network.out_channels,
        # The network pads other sizes itself, as its authors do; spandrel pads in another way.
        size_requirements=spandrel.SizeRequirements(),
        # The authors run networks of one resolution in tiles, and the others on whole images.
        tiling=spandrel.ModelTiling.SUPPORTED
        if isinstance(network, SingleImage)
        else spandrel.ModelTiling.DISCOURAGED,
    )


def _tags(network: Network) -> list[str]:
    """Return the size of a network, in the form of spandrel's own tags."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    dim, depths = (network.recipe.network.get(option) for option in ("dim", "depths"))
    return [
        *([f"{dim}dim"] if isinstance(dim, int) else []),
        *(["x".join(map(str, depths)) + "blocks"] if depths else []),
        f"{parameters / 1e6:.1f}M",
    ]


__all__ = ["OWN", "install", "is_ours"]
