// TensorRT's binary interface to plugins: from its header if there is one, else declared here.
//
// TensorRT 10 and 11 share this part of their interface (checked from 10.0 to 11.1): the order of
// the virtual functions and the layout of the structures are the contract. The assertions at the
// end hold for both versions. Parts that differ (the registry, the logger and its finder) are not
// used. Names are TensorRT's; its documentation describes the functions.
#pragma once

#if defined(__has_include)
#if __has_include(<NvInferRuntime.h>) && !defined(ZOO_OWN_TENSORRT_INTERFACE)
#define ZOO_TENSORRT_HEADER 1
#endif
#endif

#if defined(ZOO_TENSORRT_HEADER)

#include <NvInferRuntime.h>

#else

#include <stddef.h>
#include <stdint.h>

#if defined(__CUDACC__)
#include <cuda_runtime_api.h>
#else
using cudaStream_t = struct CUstream_st*;
#endif

namespace nvinfer1 {

enum class DataType : int32_t { kFLOAT = 0, kHALF = 1, kINT32 = 3, kBF16 = 7, kINT64 = 8 };
enum class TensorFormat : int32_t { kLINEAR = 0 };
enum class APILanguage : int32_t { kCPP = 0 };
enum class TensorRTPhase : int32_t { kBUILD = 0, kRUNTIME = 1 };
enum class PluginCapabilityType : int32_t { kCORE = 0, kBUILD = 1, kRUNTIME = 2 };
enum class PluginFieldType : int32_t { kINT32 = 5, kCHAR = 6 };

struct Dims {
  int32_t nbDims;
  int64_t d[8];
};

struct PluginTensorDesc {
  Dims dims;
  DataType type;
  TensorFormat format;
  float scale;
};

struct DynamicPluginTensorDesc {
  PluginTensorDesc desc;
  Dims min, max, opt;
};

class IDimensionExpr;
class IExprBuilder;
class IPluginResourceContext;
class ILoggerFinder;

struct DimsExprs {
  int32_t nbDims;
  const IDimensionExpr* d[8];
};

struct PluginField {
  const char* name;
  const void* data;
  PluginFieldType type;
  int32_t length;
};

struct PluginFieldCollection {
  int32_t nbFields;
  const PluginField* fields;
};

struct InterfaceInfo {
  const char* kind;
  int32_t major, minor;
};

class IVersionedInterface {
 public:
  virtual APILanguage getAPILanguage() const noexcept { return APILanguage::kCPP; }
  virtual InterfaceInfo getInterfaceInfo() const noexcept = 0;
  virtual ~IVersionedInterface() noexcept = default;
};

class IPluginCapability : public IVersionedInterface {};

class IPluginV3 : public IVersionedInterface {
 public:
  InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN", 1, 0}; }
  virtual IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept = 0;
  virtual IPluginV3* clone() noexcept = 0;
};

class IPluginV3OneCore : public IPluginCapability {
 public:
  InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN_V3ONE_CORE", 1, 0}; }
  virtual const char* getPluginName() const noexcept = 0;
  virtual const char* getPluginVersion() const noexcept = 0;
  virtual const char* getPluginNamespace() const noexcept = 0;
};

class IPluginV3OneBuild : public IPluginCapability {
 public:
  InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN_V3ONE_BUILD", 1, 0}; }
  virtual int32_t configurePlugin(const DynamicPluginTensorDesc* in, int32_t inputs,
                                  const DynamicPluginTensorDesc* out, int32_t outputs) noexcept = 0;
  virtual int32_t getOutputDataTypes(DataType* types, int32_t outputs, const DataType* given,
                                     int32_t inputs) const noexcept = 0;
  virtual int32_t getOutputShapes(const DimsExprs* in, int32_t inputs, const DimsExprs* shapes,
                                  int32_t shape_inputs, DimsExprs* out, int32_t outputs,
                                  IExprBuilder& builder) noexcept = 0;
  virtual bool supportsFormatCombination(int32_t index, const DynamicPluginTensorDesc* tensors,
                                         int32_t inputs, int32_t outputs) noexcept = 0;
  virtual int32_t getNbOutputs() const noexcept = 0;
  virtual size_t getWorkspaceSize(const DynamicPluginTensorDesc*, int32_t,
                                  const DynamicPluginTensorDesc*, int32_t) const noexcept {
    return 0;
  }
  virtual int32_t getValidTactics(int32_t*, int32_t) noexcept { return 0; }
  virtual int32_t getNbTactics() noexcept { return 0; }
  virtual const char* getTimingCacheID() noexcept { return nullptr; }
  virtual int32_t getFormatCombinationLimit() noexcept { return 100; }
  virtual const char* getMetadataString() noexcept { return nullptr; }
};

class IPluginV3OneRuntime : public IPluginCapability {
 public:
  InterfaceInfo getInterfaceInfo() const noexcept override {
    return {"PLUGIN_V3ONE_RUNTIME", 1, 0};
  }
  virtual int32_t setTactic(int32_t) noexcept { return 0; }
  virtual int32_t onShapeChange(const PluginTensorDesc* in, int32_t inputs,
                                const PluginTensorDesc* out, int32_t outputs) noexcept = 0;
  virtual int32_t enqueue(const PluginTensorDesc* in, const PluginTensorDesc* out,
                          const void* const* inputs, void* const* outputs, void* workspace,
                          cudaStream_t stream) noexcept = 0;
  virtual IPluginV3* attachToContext(IPluginResourceContext* context) noexcept = 0;
  virtual const PluginFieldCollection* getFieldsToSerialize() noexcept = 0;
};

class IPluginCreatorInterface : public IVersionedInterface {};

class IPluginCreatorV3One : public IPluginCreatorInterface {
 public:
  InterfaceInfo getInterfaceInfo() const noexcept override {
    return {"PLUGIN CREATOR_V3ONE", 1, 0};
  }
  virtual IPluginV3* createPlugin(const char* name, const PluginFieldCollection* fields,
                                  TensorRTPhase phase) noexcept = 0;
  virtual const PluginFieldCollection* getFieldNames() noexcept = 0;
  virtual const char* getPluginName() const noexcept = 0;
  virtual const char* getPluginVersion() const noexcept = 0;
  virtual const char* getPluginNamespace() const noexcept = 0;
};

}  // namespace nvinfer1

#endif

// These layouts are the same on all 64-bit platforms of TensorRT.
static_assert(sizeof(nvinfer1::Dims) == 72 && offsetof(nvinfer1::Dims, d) == 8, "Dims");
static_assert(sizeof(nvinfer1::DimsExprs) == 72 && offsetof(nvinfer1::DimsExprs, d) == 8,
              "DimsExprs");
static_assert(sizeof(nvinfer1::PluginTensorDesc) == 88 &&
                  offsetof(nvinfer1::PluginTensorDesc, type) == 72 &&
                  offsetof(nvinfer1::PluginTensorDesc, format) == 76 &&
                  offsetof(nvinfer1::PluginTensorDesc, scale) == 80,
              "PluginTensorDesc");
static_assert(sizeof(nvinfer1::DynamicPluginTensorDesc) == 304 &&
                  offsetof(nvinfer1::DynamicPluginTensorDesc, min) == 88 &&
                  offsetof(nvinfer1::DynamicPluginTensorDesc, max) == 160 &&
                  offsetof(nvinfer1::DynamicPluginTensorDesc, opt) == 232,
              "DynamicPluginTensorDesc");
static_assert(sizeof(nvinfer1::PluginField) == 24 && offsetof(nvinfer1::PluginField, data) == 8 &&
                  offsetof(nvinfer1::PluginField, type) == 16 &&
                  offsetof(nvinfer1::PluginField, length) == 20,
              "PluginField");
static_assert(sizeof(nvinfer1::PluginFieldCollection) == 16 &&
                  offsetof(nvinfer1::PluginFieldCollection, fields) == 8,
              "PluginFieldCollection");
static_assert(sizeof(nvinfer1::InterfaceInfo) == 16 &&
                  offsetof(nvinfer1::InterfaceInfo, major) == 8 &&
                  offsetof(nvinfer1::InterfaceInfo, minor) == 12,
              "InterfaceInfo");
static_assert(static_cast<int>(nvinfer1::DataType::kHALF) == 1 &&
                  static_cast<int>(nvinfer1::DataType::kINT32) == 3 &&
                  static_cast<int>(nvinfer1::DataType::kBF16) == 7 &&
                  static_cast<int>(nvinfer1::TensorFormat::kLINEAR) == 0 &&
                  static_cast<int>(nvinfer1::PluginCapabilityType::kRUNTIME) == 2,
              "enumerations");
