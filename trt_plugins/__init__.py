"""The selective scan for TensorRT: kernel and plugin in ``csrc``, compiled by ``build.py``."""

import zoo.startup  # noqa: F401 - before the modules of this package import others
