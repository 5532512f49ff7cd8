"""The selective scan for TensorRT: kernel and plugin in ``csrc``, compiled by ``build.py``."""
