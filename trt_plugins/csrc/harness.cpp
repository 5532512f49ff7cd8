// Makes the calls to a plugin that TensorRT makes, without TensorRT.
//
// It loads the library, finds the creator by name, version and namespace, and creates a plugin for
// the build. It negotiates types, formats, shapes and workspace, and serialises the fields. From
// these it creates a second plugin for running, attaches it to a context, sets shapes and runs it.
// The caller provides the tensors: on a GPU, or on a CPU for a library built with the shim.
//
// The C interface is for trt_plugins/harness.py. Functions return 0, or 1 and a message in `error`.

#define ZOO_OWN_TENSORRT_INTERFACE

#include "tensorrt_interface.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

using namespace nvinfer1;

namespace {

constexpr int kMostDims = 8;

struct Shape {
  int32_t rank;
  int64_t size[kMostDims];
};

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

void expect(int status, const char* function) {
  if (status != 0) fail(std::string(function) + " returned " + std::to_string(status));
}

Dims dims(const Shape& shape) {
  Dims found = {};
  found.nbDims = shape.rank;
  memcpy(found.d, shape.size, sizeof shape.size);
  return found;
}

template <typename Interface>
Interface* capability(IPluginV3* plugin, PluginCapabilityType type, const char* kind) {
  IPluginCapability* found = plugin->getCapabilityInterface(type);
  if (found == nullptr) fail(std::string("the plugin has no capability ") + kind);
  const InterfaceInfo info = found->getInterfaceInfo();
  if (strcmp(info.kind, kind) != 0 || info.major != 1) {
    fail(std::string("a capability is of kind ") + info.kind + ", not " + kind);
  }
  return static_cast<Interface*>(found);
}

class Harness {
 public:
  // types, smallest and largest are dtypes and shapes of the inputs.
  Harness(const char* library, const char* name, const char* version, const char* name_space,
          int inputs, const int32_t* types, const Shape* smallest, const Shape* largest)
      : types_(types, types + inputs) {
    library_.reset(dlopen(library, RTLD_NOW | RTLD_LOCAL));
    if (library_ == nullptr) fail(std::string("it does not load: ") + dlerror());
    IPluginCreatorV3One* creator = find_creator(name, version, name_space);
    std::unique_ptr<IPluginV3> built(create(creator, nullptr, TensorRTPhase::kBUILD));
    check_core(built.get(), name, version, name_space);
    negotiate(built.get(), smallest, largest);
    const PluginFieldCollection* fields = runtime(built.get())->getFieldsToSerialize();
    if (fields == nullptr) fail("getFieldsToSerialize returned nothing");
    std::unique_ptr<IPluginV3> made(create(creator, fields, TensorRTPhase::kRUNTIME));
    attached_.reset(runtime(made.get())->attachToContext(nullptr));
    if (attached_ == nullptr) fail("attachToContext returned nothing");
    runtime(attached_.get());
  }

  size_t workspace() const { return workspace_; }
  DataType output_type() const { return output_type_; }

  Shape output_shape(const Shape* inputs) const {
    Shape shape = {static_cast<int32_t>(axes_.size()), {}};
    for (size_t i = 0; i < axes_.size(); ++i) {
      shape.size[i] = inputs[axes_[i].input].size[axes_[i].axis];
    }
    return shape;
  }

  void run(const Shape* shapes, const void* const* inputs, const Shape& shape, void* output,
           void* workspace, void* stream) {
    std::vector<PluginTensorDesc> in(types_.size());
    for (size_t i = 0; i < in.size(); ++i) in[i] = description(dims(shapes[i]), types_[i]);
    const PluginTensorDesc out = description(dims(shape), static_cast<int32_t>(output_type_));
    const int count = static_cast<int>(in.size());
    IPluginV3OneRuntime* plugin = runtime(attached_.get());
    expect(plugin->onShapeChange(in.data(), count, &out, 1), "onShapeChange");
    expect(plugin->enqueue(in.data(), &out, inputs, &output, workspace,
                           static_cast<cudaStream_t>(stream)),
           "enqueue");
  }

 private:
  struct Unload {
    void operator()(void* library) const { dlclose(library); }
  };
  struct Axis {
    int input, axis;
  };

  static PluginTensorDesc description(const Dims& dims, int32_t type) {
    return {dims, static_cast<DataType>(type), TensorFormat::kLINEAR, 1.0f};
  }

  static IPluginV3OneRuntime* runtime(IPluginV3* plugin) {
    return capability<IPluginV3OneRuntime>(plugin, PluginCapabilityType::kRUNTIME,
                                           "PLUGIN_V3ONE_RUNTIME");
  }

  static IPluginV3* create(IPluginCreatorV3One* creator, const PluginFieldCollection* fields,
                           TensorRTPhase phase) {
    const PluginFieldCollection none = {0, nullptr};
    IPluginV3* plugin =
        creator->createPlugin("scan", fields == nullptr ? &none : fields, phase);
    if (plugin == nullptr) fail("createPlugin returned nothing");
    return plugin;
  }

  IPluginCreatorV3One* find_creator(const char* name, const char* version,
                                    const char* name_space) {
    using GetCreators = IPluginCreatorInterface* const* (*)(int32_t&);
    void* symbol = dlsym(library_.get(), "getCreators");
    if (symbol == nullptr) fail("it does not export getCreators");
    if (dlsym(library_.get(), "setLoggerFinder") == nullptr) {
      fail("it does not export setLoggerFinder");
    }
    int32_t count = 0;
    IPluginCreatorInterface* const* creators = reinterpret_cast<GetCreators>(symbol)(count);
    std::string known;
    for (int i = 0; i < count; ++i) {
      const InterfaceInfo info = creators[i]->getInterfaceInfo();
      if (strcmp(info.kind, "PLUGIN CREATOR_V3ONE") != 0) fail("a creator is not a V3One creator");
      auto* creator = static_cast<IPluginCreatorV3One*>(creators[i]);
      const std::string theirs[] = {creator->getPluginNamespace(), creator->getPluginName(),
                                    creator->getPluginVersion()};
      if (theirs[0] == name_space && theirs[1] == name && theirs[2] == version) return creator;
      known += " " + theirs[0] + "::" + theirs[1] + " version " + theirs[2] + ";";
    }
    fail(std::string("no creator of ") + name_space + "::" + name + " version " + version +
         "; there are:" + known);
  }

  static void check_core(IPluginV3* plugin, const char* name, const char* version,
                         const char* name_space) {
    auto* core =
        capability<IPluginV3OneCore>(plugin, PluginCapabilityType::kCORE, "PLUGIN_V3ONE_CORE");
    if (strcmp(core->getPluginName(), name) != 0 || strcmp(core->getPluginVersion(), version) != 0 ||
        strcmp(core->getPluginNamespace(), name_space) != 0) {
      fail("the plugin's name, version or namespace is not its creator's");
    }
  }

  void negotiate(IPluginV3* plugin, const Shape* smallest, const Shape* largest) {
    auto* build =
        capability<IPluginV3OneBuild>(plugin, PluginCapabilityType::kBUILD, "PLUGIN_V3ONE_BUILD");
    const int count = static_cast<int>(types_.size());
    if (build->getNbOutputs() != 1) fail("the plugin does not have exactly one output");
    std::vector<DataType> types;
    for (int32_t type : types_) types.push_back(static_cast<DataType>(type));
    expect(build->getOutputDataTypes(&output_type_, 1, types.data(), count), "getOutputDataTypes");
    find_output_axes(build, smallest);

    std::vector<DynamicPluginTensorDesc> tensors(count + 1);
    for (int i = 0; i <= count; ++i) {
      const bool is_output = i == count;
      const Dims least = dims(is_output ? output_shape(smallest) : smallest[i]);
      const Dims most = dims(is_output ? output_shape(largest) : largest[i]);
      Dims unknown = most;
      for (int axis = 0; axis < most.nbDims; ++axis) {
        if (least.d[axis] != most.d[axis]) unknown.d[axis] = -1;
      }
      const int32_t type = is_output ? static_cast<int32_t>(output_type_) : types_[i];
      tensors[i] = {description(unknown, type), least, most, most};
    }
    for (int i = 0; i <= count; ++i) {
      if (!build->supportsFormatCombination(i, tensors.data(), count, 1)) {
        fail("the data type or format of " +
             (i == count ? std::string("the output") : "input " + std::to_string(i)) +
             " is not supported");
      }
    }
    expect(build->configurePlugin(tensors.data(), count, &tensors[count], 1), "configurePlugin");
    workspace_ = build->getWorkspaceSize(tensors.data(), count, &tensors[count], 1);
    if (workspace_ > SIZE_MAX / 4) fail("getWorkspaceSize returned no valid size");
  }

  // Expressions of sizes are opaque, so the axes of the output are recognised by their addresses.
  void find_output_axes(IPluginV3OneBuild* build, const Shape* inputs) {
    const size_t count = types_.size();
    std::vector<char> cells(count * kMostDims);
    auto expression = [&](size_t cell) {
      return reinterpret_cast<const IDimensionExpr*>(&cells[cell]);
    };
    std::vector<DimsExprs> in(count);
    for (size_t i = 0; i < count; ++i) {
      in[i].nbDims = inputs[i].rank;
      for (int axis = 0; axis < kMostDims; ++axis) in[i].d[axis] = expression(i * kMostDims + axis);
    }
    DimsExprs out = {};
    char builder = 0;
    expect(build->getOutputShapes(in.data(), static_cast<int>(count), nullptr, 0, &out, 1,
                                  reinterpret_cast<IExprBuilder&>(builder)),
           "getOutputShapes");
    for (int axis = 0; axis < out.nbDims; ++axis) {
      size_t cell = 0;
      while (cell < cells.size() && expression(cell) != out.d[axis]) ++cell;
      if (cell == cells.size()) fail("a size of the output is not a size of an input");
      axes_.push_back({static_cast<int>(cell / kMostDims), static_cast<int>(cell % kMostDims)});
    }
  }

  std::unique_ptr<void, Unload> library_;
  std::vector<int32_t> types_;
  DataType output_type_ = DataType::kFLOAT;
  std::vector<Axis> axes_;
  size_t workspace_ = 0;
  std::unique_ptr<IPluginV3> attached_;
};

template <typename Body>
int guarded(char* error, size_t length, Body body) {
  try {
    body();
    return 0;
  } catch (const std::exception& problem) {
    snprintf(error, length, "%s", problem.what());
    return 1;
  }
}

}  // namespace

#define ZOO_EXPORT extern "C" __attribute__((visibility("default")))

ZOO_EXPORT int harness_open(const char* library, const char* name, const char* version,
                            const char* name_space, int inputs, const int32_t* types,
                            const Shape* smallest, const Shape* largest, Harness** harness,
                            char* error, size_t length) {
  return guarded(error, length, [&] {
    *harness =
        new Harness(library, name, version, name_space, inputs, types, smallest, largest);
  });
}

ZOO_EXPORT void harness_close(Harness* harness) { delete harness; }

ZOO_EXPORT size_t harness_workspace(const Harness* harness) { return harness->workspace(); }

ZOO_EXPORT int32_t harness_output(const Harness* harness, const Shape* inputs, Shape* output) {
  *output = harness->output_shape(inputs);
  return static_cast<int32_t>(harness->output_type());
}

ZOO_EXPORT int harness_run(Harness* harness, const Shape* shapes, const void* const* inputs,
                           const Shape* shape, void* output, void* workspace, void* stream,
                           char* error, size_t length) {
  return guarded(error, length,
                 [&] { harness->run(shapes, inputs, *shape, output, workspace, stream); });
}
