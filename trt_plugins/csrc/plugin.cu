// TensorRT plugins `SelectiveScan` and `SelectiveScanSum`, version 1, namespace zoo.
//
// The same library works with TensorRT 10 and 11 and with TensorRT-RTX, as IPluginV3. It does not
// link to TensorRT: `registry.loadLibrary`, trtexec's --dynamicPlugins and similar tools find the
// creators through `getCreators`. A plugin has no fields: the shapes of its inputs are enough.
//
// Errors of a call go to standard error and to the returned status. TensorRT's logger cannot be
// used, because its interface differs between 10 and 11.

#include <stdarg.h>
#include <stdio.h>

#include <new>

#include "selective_scan.cuh"
#include "tensorrt_interface.h"

using namespace nvinfer1;

namespace {

// Names and inputs as in zoo/ops/scan/names.py and contract.py; a test compares them.
constexpr const char* kNamespace = "zoo";
constexpr const char* kVersion = "1";

enum Input { kU, kDelta, kDeltaWeight, kDeltaBias, kA, kB, kC, kD, kOrder, kInputs };
constexpr int kY = kInputs, kTensors = kInputs + 1;

// Axes by letter: B batch, L tokens, K directions, S steps, E channels, R rank, N states. The order
// may also be BKS, with an order for each image. Engines whose order is KS run as they did, so the
// version is the same; a library from before that is given BKS says that it needs KS.
constexpr const char kOrderOfEach[] = "BKS";
struct Declared {
  const char *name, *axes;
};
constexpr Declared kDeclared[kTensors] = {
    {"u", "BLE"},   {"delta", "BLKR"}, {"delta_weight", "KER"}, {"delta_bias", "KE"},
    {"A", "KEN"},   {"B", "BLKN"},     {"C", "BLKN"},           {"D", "KE"},
    {"order", "KS"}, {"y", "BLKE"},
};
constexpr const char kLetters[] = "BLKSERN";

// Sizes by letter; -1 while a size is unknown.
struct Axes {
  int64_t size[sizeof kLetters - 1];
  int source[sizeof kLetters - 1];  // tensor that gave the size

  int64_t operator[](char letter) const {
    int i = 0;
    while (kLetters[i] != letter) ++i;
    return size[i];
  }
  zoo::Sizes sizes() const {
    const Axes& a = *this;
    return {a['B'], a['L'], a['K'], a['S'], a['E'], a['R'], a['N']};
  }
};

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
int fail(const char* plugin, const char* format, ...) {
  char text[400];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  fprintf(stderr, "zoo::%s: %s\n", plugin, text);
  return 1;
}

class ScanPlugin final : public IPluginV3,
                         public IPluginV3OneCore,
                         public IPluginV3OneBuild,
                         public IPluginV3OneRuntime {
 public:
  ScanPlugin(const char* name, bool summed) : name_(name), summed_(summed) {}

  // ---- IPluginV3 ----

  IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
    switch (type) {
      case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
      case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
      case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }
  IPluginV3* clone() noexcept override { return new (std::nothrow) ScanPlugin(*this); }

  // ---- Core ----

  const char* getPluginName() const noexcept override { return name_; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

  // ---- Build ----

  int32_t getNbOutputs() const noexcept override { return 1; }

  int32_t getOutputDataTypes(DataType* types, int32_t outputs, const DataType* given,
                             int32_t inputs) const noexcept override {
    if (int wrong = check_counts(inputs, outputs)) return wrong;
    types[0] = given[kU];
    return 0;
  }

  int32_t getOutputShapes(const DimsExprs* in, int32_t inputs, const DimsExprs*, int32_t,
                          DimsExprs* out, int32_t outputs, IExprBuilder&) noexcept override {
    if (int wrong = check_counts(inputs, outputs)) return wrong;
    for (int i = 0; i < kInputs; ++i) {
      if (int wrong = check_rank(i, in[i].nbDims)) return wrong;
    }
    const DimsExprs &u = in[kU], &A = in[kA];
    int axis = 0;
    out[0].d[axis++] = u.d[0];
    out[0].d[axis++] = u.d[1];
    if (!summed_) out[0].d[axis++] = A.d[0];
    out[0].d[axis++] = u.d[2];
    out[0].nbDims = axis;
    return 0;
  }

  bool supportsFormatCombination(int32_t index, const DynamicPluginTensorDesc* tensors,
                                 int32_t inputs, int32_t outputs) noexcept override {
    if (inputs != kInputs || outputs != 1 || index < 0 || index >= kTensors) return false;
    const PluginTensorDesc& tensor = tensors[index].desc;
    return tensor.format == TensorFormat::kLINEAR &&
           is_allowed(index, tensor.type, tensors[kU].desc.type);
  }

  int32_t configurePlugin(const DynamicPluginTensorDesc* in, int32_t inputs,
                          const DynamicPluginTensorDesc* out, int32_t outputs) noexcept override {
    if (int wrong = check_counts(inputs, outputs)) return wrong;
    Axes axes;
    return check(
        [=](int i) -> const PluginTensorDesc& { return i == kY ? out[0].desc : in[i].desc; },
        false, &axes);
  }

  size_t getWorkspaceSize(const DynamicPluginTensorDesc* in, int32_t inputs,
                          const DynamicPluginTensorDesc*, int32_t outputs) const noexcept override {
    // A size that cannot be allocated, so that the build fails, and not a later call.
    constexpr size_t kNever = SIZE_MAX / 2;
    if (check_counts(inputs, outputs) != 0) return kNever;
    Dims most[kInputs];
    for (int i = 0; i < kInputs; ++i) {
      most[i] = in[i].max;
      for (int axis = 0; axis < most[i].nbDims; ++axis) {
        if (most[i].d[axis] >= 0) continue;
        fail(name_, "the largest size of input %s is unknown; give the network a profile",
             kDeclared[i].name);
        return kNever;
      }
      if (check_rank(i, most[i].nbDims) != 0) return kNever;
    }
    const Dims &u = most[kU], &A = most[kA];
    const Dims& order = most[kOrder];
    const zoo::Sizes sizes = {u.d[0], u.d[1], A.d[0], order.d[order.nbDims - 1],
                              u.d[2], most[kDelta].d[3], A.d[2]};
    return zoo::most_workspace(sizes, token(in[kU].desc.type), summed_);
  }

  // There is only one tactic, so there is nothing to time; with an ID, a timing cache stores that.
  const char* getTimingCacheID() noexcept override { return kVersion; }

  // ---- Run ----

  int32_t onShapeChange(const PluginTensorDesc* in, int32_t inputs, const PluginTensorDesc* out,
                        int32_t outputs) noexcept override {
    if (int wrong = check_counts(inputs, outputs)) return wrong;
    Axes axes;
    return check([=](int i) -> const PluginTensorDesc& { return i == kY ? out[0] : in[i]; }, true,
                 &axes);
  }

  int32_t enqueue(const PluginTensorDesc* in, const PluginTensorDesc* out,
                  const void* const* inputs, void* const* outputs, void* workspace,
                  cudaStream_t stream) noexcept override {
    Axes axes;
    const int wrong = check(
        [=](int i) -> const PluginTensorDesc& { return i == kY ? out[0] : in[i]; }, true, &axes);
    if (wrong != 0) return wrong;
    zoo::Tensors given;
    given.u = inputs[kU];
    given.delta = inputs[kDelta];
    given.B = inputs[kB];
    given.C = inputs[kC];
    given.delta_weight = static_cast<const float*>(inputs[kDeltaWeight]);
    given.delta_bias = static_cast<const float*>(inputs[kDeltaBias]);
    given.A = static_cast<const float*>(inputs[kA]);
    given.D = static_cast<const float*>(inputs[kD]);
    given.order = static_cast<const int32_t*>(inputs[kOrder]);
    given.order_stride = in[kOrder].dims.nbDims == 3 ? axes['K'] * axes['S'] : 0;
    given.y = outputs[0];
    const char* failure = zoo::selective_scan(axes.sizes(), given, token(in[kU].type), summed_,
                                              workspace, stream);
    return failure == nullptr ? 0 : fail(name_, "the kernel did not start: %s", failure);
  }

  IPluginV3* attachToContext(IPluginResourceContext*) noexcept override { return clone(); }

  const PluginFieldCollection* getFieldsToSerialize() noexcept override {
    static const PluginFieldCollection kNone = {0, nullptr};
    return &kNone;
  }

 private:
  static zoo::Token token(DataType type) {
    return type == DataType::kHALF   ? zoo::Token::kFloat16
           : type == DataType::kBF16 ? zoo::Token::kBFloat16
                                     : zoo::Token::kFloat32;
  }

  static bool is_allowed(int tensor, DataType type, DataType tokens) {
    switch (tensor) {
      case kOrder: return type == DataType::kINT32;
      case kDeltaWeight: case kDeltaBias: case kA: case kD: return type == DataType::kFLOAT;
      default:
        return type == tokens && (type == DataType::kFLOAT || type == DataType::kHALF ||
                                  type == DataType::kBF16);
    }
  }

  const char* axes_of(int tensor, int32_t rank) const {
    if (tensor == kOrder && rank == 3) return kOrderOfEach;
    return tensor == kY && summed_ ? "BLE" : kDeclared[tensor].axes;
  }

  int check_counts(int32_t inputs, int32_t outputs) const {
    if (inputs == kInputs && outputs == 1) return 0;
    return fail(name_, "got %d inputs and %d outputs; it needs %d and 1", inputs, outputs, kInputs);
  }

  int check_rank(int tensor, int32_t found) const {
    const char* axes = axes_of(tensor, found);
    int rank = 0;
    while (axes[rank] != '\0') ++rank;
    if (found == rank) return 0;
    return fail(name_, "%s has %d dimensions; it must have %d: %s%s", kDeclared[tensor].name, found,
                rank, axes, tensor == kOrder ? ", or 3: BKS" : "");
  }

  // Checks shapes and dtypes. Unless `known`, sizes of -1 are skipped.
  template <typename TensorAt>
  int check(TensorAt tensor_at, bool known, Axes* axes) const {
    for (int64_t& size : axes->size) size = -1;
    const DataType tokens = tensor_at(kU).type;
    for (int i = 0; i < kTensors; ++i) {
      const PluginTensorDesc& tensor = tensor_at(i);
      if (int wrong = check_rank(i, tensor.dims.nbDims)) return wrong;
      if (!is_allowed(i, tensor.type, tokens)) {
        const char* wanted = i == kOrder ? "int32"
                             : i == kDeltaWeight || i == kDeltaBias || i == kA || i == kD
                                 ? "float32"
                                 : "float32, float16 or bfloat16 and the same as u's";
        return fail(name_, "%s has TensorRT's data type %d; it must be %s", kDeclared[i].name,
                    static_cast<int>(tensor.type), wanted);
      }
      const char* letters = axes_of(i, tensor.dims.nbDims);
      for (int axis = 0; letters[axis] != '\0'; ++axis) {
        int letter = 0;
        while (kLetters[letter] != letters[axis]) ++letter;
        const int64_t size = tensor.dims.d[axis];
        if (size < 0) {
          if (!known) continue;
          return fail(name_, "the size of %s (%s) along %c is unknown", kDeclared[i].name,
                      letters, letters[axis]);
        }
        if (axes->size[letter] < 0) {
          axes->size[letter] = size;
          axes->source[letter] = i;
        } else if (axes->size[letter] != size) {
          return fail(name_, "%s (%s) has %c = %lld, but %s has %c = %lld", kDeclared[i].name,
                      letters, letters[axis], static_cast<long long>(size),
                      kDeclared[axes->source[letter]].name, letters[axis],
                      static_cast<long long>(axes->size[letter]));
        }
      }
    }
    const Axes& a = *axes;
    if (a['N'] > zoo::kMostStates) {
      return fail(name_, "A has N = %lld states; this plugin supports at most %d, so build the "
                  "engine without it", static_cast<long long>(a['N']), zoo::kMostStates);
    }
    for (const char* letter = "KERN"; *letter != '\0'; ++letter) {
      if (a[*letter] == 0) return fail(name_, "%c = 0: there is nothing to scan", *letter);
    }
    return 0;
  }

  const char* name_;
  bool summed_;
};

class Creator final : public IPluginCreatorV3One {
 public:
  Creator(const char* name, bool summed) : name_(name), summed_(summed) {}

  // Fields that a parser may pass (plugin_version, plugin_namespace) are already known.
  IPluginV3* createPlugin(const char*, const PluginFieldCollection*,
                          TensorRTPhase) noexcept override {
    return new (std::nothrow) ScanPlugin(name_, summed_);
  }
  const PluginFieldCollection* getFieldNames() noexcept override {
    static const PluginFieldCollection kNone = {0, nullptr};
    return &kNone;
  }
  const char* getPluginName() const noexcept override { return name_; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  const char* name_;
  bool summed_;
};

}  // namespace

#if defined(_WIN32)
#define ZOO_EXPORT extern "C" __declspec(dllexport)
#else
#define ZOO_EXPORT extern "C" __attribute__((visibility("default")))
#endif

ZOO_EXPORT void setLoggerFinder(ILoggerFinder*) {}

ZOO_EXPORT IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static Creator each("SelectiveScan", false), sum("SelectiveScanSum", true);
  static IPluginCreatorInterface* const creators[] = {&each, &sum};
  count = 2;
  return creators;
}
