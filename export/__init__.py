"""Export of networks to files that run elsewhere: ``python -m export.onnx``."""
