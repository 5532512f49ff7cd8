"""Stands for TensorRT where it is not installed: as much of its Python interface as we use.

Names and their first releases are those of the bindings in NVIDIA's repository, 10.0 to 11.1.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import onnx

from zoo.ops.scan.names import EACH, PLUGIN_ATTRIBUTES, SUM

RECURSIVE = (10, 10)
"""The release from which a registry lists the creators of those above it, too."""


class OldRegistry:
    """A registry of plugins, of TensorRT 10.0 to 10.9."""

    def __init__(self, owner):
        self.owner = owner

    @property
    def all_creators(self):
        return [
            SimpleNamespace(name=name, **PLUGIN_ATTRIBUTES)
            for _ in self.owner.libraries
            for name in self.owner.creators
        ]

    def load_library(self, path):
        self.owner.libraries = (*self.owner.libraries, path)


class Registry(OldRegistry):
    """A registry of plugins, from TensorRT 10.10 on."""

    @property
    def all_creators_recursive(self):
        return self.all_creators


class StandIn:
    """As much of TensorRT's interface as a build uses.

    Attributes:
        plugins: how many layers the parser says are plugins.
        content: of the engine, without embedded libraries; None for a build that fails.
        embeds: whether libraries to serialise go into the engine.
        goes_on: what the progress monitor said after each step.
    """

    __version__ = "10.16.1"
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=0)
    BuilderFlag = SimpleNamespace(TF32="tf32")

    def __init__(self):
        self.plugins, self.content, self.gate = 2, SUM.encode() * 4, None
        self.embeds = True
        self.cleared, self.shapes, self.serialized, self.goes_on = [], {}, None, []

        class ILogger:
            Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, INFO=3)

            def __init__(self):
                self.begun = True  # as bindings ask for

        class IProgressMonitor:
            def __init__(self):
                self.begun = True  # as bindings ask for

        self.ILogger, self.IProgressMonitor = ILogger, IProgressMonitor

    def Builder(self, log):  # noqa: N802
        assert log.begun
        self.log = log
        return self

    def get_plugin_registry(self):
        release = tuple(map(int, self.__version__.split(".")[:2]))
        return (Registry if release >= RECURSIVE else OldRegistry)(self)

    fits = True
    libraries = ()
    creators = (EACH, SUM)

    def create_network(self, flags):
        kinds = ["LayerType.CONSTANT"] * 3 + ["LayerType.PLUGIN_V3"] * self.plugins
        output = SimpleNamespace(name="output", shape=(-1, 8, 12, 12))
        return SimpleNamespace(
            num_layers=len(kinds),
            get_layer=lambda i: SimpleNamespace(type=kinds[i]),
            num_inputs=1,
            get_input=lambda i: SimpleNamespace(name="input"),
            num_outputs=1,
            get_output=lambda i: output,
            flags=flags,
        )

    def OnnxParser(self, network, log):  # noqa: N802
        assert network.flags == 1

        def parse(content):
            self.parsed = onnx.ModelProto.FromString(content)
            return True

        return SimpleNamespace(parse=parse)

    def create_optimization_profile(self):
        return SimpleNamespace(set_shape=lambda name, *sizes: self.shapes.__setitem__(name, sizes))

    def create_builder_config(self):
        config = SimpleNamespace(plugins_to_serialize=[], add_optimization_profile=lambda p: None)
        config.clear_flag = self.cleared.append
        kept = []
        config.create_timing_cache = lambda content: kept.append(content) or content
        config.set_timing_cache = lambda cache, ignore_mismatch: self.fits and not ignore_mismatch
        config.get_timing_cache = lambda: SimpleNamespace(serialize=lambda: kept[-1] + b"measured")
        return config

    def build_serialized_network(self, network, config):
        self.serialized = config.plugins_to_serialize
        assert config.progress_monitor.begun
        config.progress_monitor.phase_start("Building", None, 1)
        self.log.log(self.ILogger.Severity.INFO, "Total Activation Memory: 4096 bytes")
        self.goes_on.append(config.progress_monitor.step_complete("Building", 0))
        if self.gate is not None:
            self.gate.wait(10)
            self.goes_on.append(config.progress_monitor.step_complete("Building", 1))
        if self.content is None:
            self.log.log(self.ILogger.Severity.ERROR, "no kernel\nwas found")
            return None
        embedded = map(Path, self.serialized if self.embeds else ())
        return b"".join([self.content, *(path.read_bytes() for path in embedded)])
