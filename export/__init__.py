"""Export of networks: ``python -m export.onnx``, ``export.trt`` and ``export.serve``."""
