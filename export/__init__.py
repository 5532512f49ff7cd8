"""Export of networks: ``python -m export.onnx``, ``export.trt`` and ``export.serve``."""

import zoo.startup  # noqa: F401 - before the modules of this package import others
