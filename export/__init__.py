"""Export to ONNX and TensorRT. Not there yet: see the README."""
