"""timm: make every recipe available in ``timm.create_model``.

    import timm
    import zoo.integrations.timm as adapter

    adapter.register()
    network = timm.create_model("mambair_light_x4", in_chans=1, drop_path_rate=0.1)
    timm.list_pretrained("mamba*_tiny*")

timm installs torchvision, which does not work with every build of torch. So timm is an extra, and
nothing else in this package needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zoo.checkpoints import load
from zoo.checkpoints.loading import cast
from zoo.errors import ZooError, pip_install, shown
from zoo.networks import Network
from zoo.recipe import build, load_recipe
from zoo.shipped import WEIGHTS, list_models, shipped_weights


def register(pattern: str = "*") -> list[str]:
    """Register the published models with timm.

    Then ``timm.create_model(name, **overrides)`` builds a model as :func:`zoo.build` does. With
    ``pretrained=True``, it loads the weights as :func:`zoo.load` does.

    Args:
        pattern: shell-style pattern of model names.

    Returns:
        The names that were registered.

    Raises:
        ZooError: if timm cannot be imported; the message gives the reason.
    """
    try:
        from timm.models import is_model_in_modules, register_model
    except (ImportError, RuntimeError) as error:
        raise ZooError(
            f"timm cannot be imported ({error}); {pip_install('timm')}, with a "
            "torchvision built for the installed torch"
        ) from error
    names = list_models(pattern)
    for name in names:
        if name in shipped_weights():
            default_cfgs[name] = _facts_for_timm(name)
        if not is_model_in_modules(name, [__name__.rpartition(".")[2]]):
            register_model(entrypoint(name))
    return names


default_cfgs: dict[str, dict[str, Any]] = {}
"""What timm knows of the models whose weights ship, by name; timm looks for this name."""


def _facts_for_timm(name: str, channels: int | None = None) -> dict[str, Any]:
    """Return the facts of a model by timm's names; ``timm.data`` reads them from the network.

    Args:
        name: the model.
        channels: image channels; None for those of the recipe.
    """
    recipe = load_recipe(name)
    channels = channels or recipe.network.get("channels", 3)
    shipped = {"file": str(WEIGHTS / f"{name}.safetensors")} if name in shipped_weights() else {}
    return {
        **shipped,
        "architecture": name,
        "num_classes": 0,
        "input_size": (channels, 64, 64),
        "min_input_size": (channels, 1, 1),
        "mean": (0.0,) * channels,  # images are from 0 to 1; the network subtracts its own mean
        "std": (1.0,) * channels,
        "crop_pct": 1.0,  # nothing is cut off
        "description": recipe.summary,
    }


RENAMED = {"in_chans": "channels", "drop_path_rate": "drop_path"}
"""Our names of timm's options."""

FOR_CLASSIFIERS: dict[str, tuple[Any, ...]] = {
    "num_classes": (0,),
    "drop_rate": (0.0,),
    "features_only": (False,),
    "out_indices": (),
    "global_pool": ("",),
    "img_size": (),
}
"""Options of classifiers that timm's users pass to any model, and the values that mean none."""


def entrypoint(name: str) -> Callable[..., Network]:
    """Return the function that timm calls to create a model; it has the model's name.

    It takes the options of the network and timm's ``in_chans`` and ``drop_path_rate``; ``device``
    and ``dtype`` move the network, and ``num_classes=0`` has no effect, as there is no classifier.
    The network's ``pretrained_cfg`` has what ``timm.data`` asks for: images from 0 to 1, without
    ImageNet's mean, uncropped.
    """

    def create(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Network:
        # timm also passes its own settings; None means not given.
        given = {
            RENAMED.get(key, key): value for key, value in options.items() if value is not None
        }
        for option, nones in FOR_CLASSIFIERS.items():
            if option in given and given.pop(option) not in nones:
                raise ZooError(f"{name}: {option} {WHY_NOT[option]}; leave it out")
        given.pop("cache_dir", None)  # nothing is downloaded
        device, dtype = given.pop("device", None), given.pop("dtype", None)
        facts = _facts_given(name, pretrained_cfg, pretrained_cfg_overlay)
        own = load_recipe(name).network.get("channels", 3)
        ships = name in shipped_weights()
        if not pretrained:
            network = build(name, **given)
        elif ships and "file" not in facts and given.get("channels", own) != own:
            raise ZooError(
                f"{name}: the weights that ship are for in_chans={own}, not {given['channels']}; "
                "leave out in_chans or pretrained=True"
            )
        elif "file" in facts:
            network = load(facts["file"], recipe=name, **given)
        else:
            network = load(name, **given)
        network = cast(network, dtype)
        if device is not None:
            network = network.to(device)
        described: Any = network  # modules take any attribute
        described.pretrained_cfg = {**_facts_for_timm(name, network.channels), **facts}
        described.default_cfg = described.pretrained_cfg  # its name in older code
        return network

    create.__name__ = create.__qualname__ = name
    return create


def _facts_given(name: str, facts: Any, overlay: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a user gives as ``pretrained_cfg`` and ``pretrained_cfg_overlay``.

    Raises:
        ZooError: if they name weights in another way than by a file, or a tag.
    """
    if isinstance(facts, str) and facts:
        raise ZooError(f"{name} has one kind of weights; leave out the tag {shown(facts)}")
    if hasattr(facts, "to_dict"):
        facts = facts.to_dict()
    told = {**(facts or {}), **(overlay or {})}
    for key in OTHER_SOURCES:
        if told.get(key):
            raise ZooError(f"{name}: {key} is not read here; give the path of the weights as file")
    return {key: value for key, value in told.items() if value is not None}


OTHER_SOURCES = ("url", "hf_hub_id", "state_dict")
"""How timm's facts name weights, beside ``file``."""

WHY_NOT = {
    "num_classes": "is for classifiers, and this network returns images",
    "drop_rate": "is for classifiers; this network drops paths only, by drop_path_rate",
    "out_indices": "is for features of several sizes, and these networks have no such list",
    "global_pool": "is for classifiers, and this network returns images",
    "img_size": "is for networks of one size, and this one takes images of any",
    "features_only": "would return features of several sizes, and these networks have no such list",
}
"""Why an option of a classifier cannot be had."""
