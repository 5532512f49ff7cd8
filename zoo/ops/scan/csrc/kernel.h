// The functions that a dispatch level offers. Each level is one translation unit, compiled with its
// own instruction set. Everything else in it has internal linkage, so that the linker cannot merge
// a function with wide instructions into code that runs before dispatch.
#pragma once

#include "threads.h"
#include "zoo_passes.h"
#include "zoo_scan.h"

struct Kernel {
  const char* name;
  int (*forward)(const ZooScan&, void* y, const Team&);
  int (*backward)(const ZooScan&, const ZooScanGradients&, const Team&);
  // grad: null for the output, else that of the output, for the gradient of the convolution.
  int (*depthwise)(const ZooDepthwise&, const float* grad, float* out, const Team&);
  int (*depthwise_weights)(const ZooDepthwise&, const float* grad, float* weight, float* bias,
                           const Team&);
  int (*tokens)(const ZooTokens&, const Team&);
  int (*tokens_gradients)(const ZooTokens&, const ZooTokensGradients&, const Team&);
  int (*gain)(const ZooGain&, const Team&);
  int (*directions_mean)(const ZooDirections&, float* out, const Team&);
  int (*directions_sum)(const ZooDirections&, const float* gate, float* out, const Team&);
  int (*rows)(const ZooRows&, const Team&);
  void (*exp)(const float* in, float* out, int64_t count);
  void (*softplus)(const float* in, float* out, int64_t count);
  bool half_products;  // whether it has products of bfloat16, on CPUs that have them
};

extern const Kernel kernel_portable;
#if defined(__x86_64__)
extern const Kernel kernel_avx2;
extern const Kernel kernel_avx512;
#elif defined(__aarch64__)
extern const Kernel kernel_neon;
#endif

// Finds the kernel for a level, or the best one if `name` is null; see zoo_scan.h.
int find_kernel(const char* name, const Kernel** kernel);

// Whether a kernel has products of bfloat16, and this CPU their instruction.
bool has_half_products(const Kernel& kernel);
