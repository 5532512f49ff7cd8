// The device functions that the kernels use: from CUDA, or for tests on a CPU from the shim.
#pragma once

#if defined(__CUDACC__)

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace zoo {

using Stream = cudaStream_t;
using Half = __half;
using BFloat16 = __nv_bfloat16;

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(Half x) { return __half2float(x); }
__device__ inline float to_float(BFloat16 x) { return __bfloat162float(x); }
__device__ inline void round_to(float* to, float x) { *to = x; }
__device__ inline void round_to(Half* to, float x) { *to = __float2half_rn(x); }
__device__ inline void round_to(BFloat16* to, float x) { *to = __float2bfloat16_rn(x); }

// 2^x with a relative error of at most 2^-22; results below 2^-126 are 0.
__device__ inline float power_of_2(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}

// Launches a kernel. Returns null, or CUDA's error message.
template <typename Argument>
const char* launch(void (*kernel)(Argument), int64_t blocks, int threads, Stream stream,
                   Argument argument) {
  void* arguments[] = {&argument};
  const cudaError_t status = cudaLaunchKernel(
      reinterpret_cast<const void*>(kernel), dim3(static_cast<unsigned>(blocks)),
      dim3(static_cast<unsigned>(threads)), arguments, 0, stream);
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

inline const char* fill_with_zeros(void* memory, size_t bytes, Stream stream) {
  const cudaError_t status = cudaMemsetAsync(memory, 0, bytes, stream);
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

}  // namespace zoo

#else
#include "cpu_shim.h"
#endif
