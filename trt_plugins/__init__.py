"""The TensorRT plugin of the selective scan. Not there yet: see the README."""
