"""timm: every recipe of the zoo as a model of ``timm.create_model``.

    import timm
    import zoo.integrations.timm as adapter

    adapter.register()
    network = timm.create_model("mambair_light_x4")

timm brings torchvision, which does not import beside every build of torch; that is why it is an
extra and nothing else here needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zoo.errors import ZooError
from zoo.networks import Network
from zoo.recipe import build, list_models


def register(pattern: str = "*") -> list[str]:
    """Register the published models with timm.

    ``timm.create_model(name, **overrides)`` then builds them as :func:`zoo.build` does, and with
    ``pretrained=True`` loads them as :func:`zoo.load` does.

    Args:
        pattern: shell-style pattern of model names.

    Returns:
        The names that were registered.

    Raises:
        ZooError: where timm cannot be imported, with its reason.
    """
    try:
        from timm.models import register_model
    except (ImportError, RuntimeError) as error:
        raise ZooError(
            f"timm cannot be imported ({error}); pip install 'mamba-restoration-zoo[timm]' with a "
            "torchvision built for the installed torch"
        ) from error
    names = list_models(pattern)
    for name in names:
        register_model(entrypoint(name))
    return names


def entrypoint(name: str) -> Callable[..., Network]:
    """The function that timm calls to create a model; it goes by the model's name."""

    def create(pretrained: bool = False, **options: Any) -> Network:
        # timm passes settings of its own for classifiers; None means not given.
        given = {
            key: value
            for key, value in options.items()
            if value is not None and key not in ("pretrained_cfg", "pretrained_cfg_overlay")
        }
        if pretrained:
            from zoo.checkpoints import load

            return load(name, **given)
        return build(name, **given)

    create.__name__ = create.__qualname__ = name
    return create
