"""timm: make every recipe available in ``timm.create_model``.

    import timm
    import zoo.integrations.timm as adapter

    adapter.register()
    network = timm.create_model("mambair_light_x4")

timm installs torchvision, which does not work with every build of torch. So timm is an extra, and
nothing else in this package needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zoo.errors import ZooError, pip_install
from zoo.networks import Network
from zoo.recipe import build
from zoo.shipped import list_models


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
        from timm.models import register_model
    except (ImportError, RuntimeError) as error:
        raise ZooError(
            f"timm cannot be imported ({error}); {pip_install('timm')}, with a "
            "torchvision built for the installed torch"
        ) from error
    names = list_models(pattern)
    for name in names:
        register_model(entrypoint(name))
    return names


def entrypoint(name: str) -> Callable[..., Network]:
    """Return the function that timm calls to create a model; it has the model's name."""

    def create(pretrained: bool = False, **options: Any) -> Network:
        # timm also passes its own settings for classifiers; None means not given.
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
