// The C interface of the passes: checks a call and chooses the dispatch level.

#include "zoo_passes.h"

#include "kernel.h"

namespace {

// Elements that make an additional thread worth its cost.
constexpr int64_t kElementsPerThread = 32768;
// Sizes beyond this could overflow the numbers of elements that the kernels compute.
constexpr int64_t kMostElements = int64_t(1) << 48;

template <int kCount>
bool aligned(const float* const (&tensors)[kCount]) {
  uintptr_t bits = 0;
  for (const float* tensor : tensors) bits |= reinterpret_cast<uintptr_t>(tensor);
  return bits % sizeof(float) == 0;
}

// The product of sizes, or -1 if one is negative or the product is too large.
template <int kCount>
int64_t elements(const int64_t (&sizes)[kCount]) {
  int64_t product = 1;
  for (const int64_t size : sizes) {
    if (size < 0 || size > kMostElements) return -1;
    if (size > 0 && product > kMostElements / size) return -1;
    product *= size;
  }
  return product;
}

Team team_for(int64_t count, int threads, ZooOpenMP openmp) {
  const int64_t useful = 1 + count / kElementsPerThread;
  if (threads > kMaxThreads) threads = kMaxThreads;
  return {threads < useful ? threads : static_cast<int>(useful), openmp};
}

}  // namespace

int zoo_depthwise(const ZooDepthwise* call, float* out, const char* level, int threads,
                  ZooOpenMP openmp) {
  const Kernel* kernel = nullptr;
  const int status = find_kernel(level, &kernel);
  if (status != ZOO_OK) return status;
  const int64_t count = elements({call->batch, call->height, call->width, call->channels});
  const int64_t taps = elements({call->channels, call->kernel, call->kernel});
  const bool odd = call->kernel > 0 && call->kernel % 2 == 1;
  if (count < 0 || taps < 0 || !odd || call->dilation < 1) return ZOO_WRONG_SIZE;
  if (call->dilation > kMostElements / call->kernel) return ZOO_WRONG_SIZE;
  if (call->activation < ZOO_NO_ACTIVATION || call->activation > ZOO_GELU) return ZOO_WRONG_SIZE;
  const float* tensors[] = {call->x, call->weight, call->bias, out};
  if (!aligned(tensors)) return ZOO_MISALIGNED;
  if (count == 0) return ZOO_OK;
  return kernel->depthwise(*call, out, team_for(count, threads, openmp));
}

int zoo_tokens(const ZooTokens* call, const char* level, int threads, ZooOpenMP openmp) {
  const Kernel* kernel = nullptr;
  const int status = find_kernel(level, &kernel);
  if (status != ZOO_OK) return status;
  const int64_t count = elements({call->images, call->tokens, call->channels});
  if (count < 0) return ZOO_WRONG_SIZE;
  const float* tensors[] = {call->x,    call->gain, call->skip, call->scale, call->weight,
                            call->bias, call->gate, call->sum,  call->out};
  if (!aligned(tensors)) return ZOO_MISALIGNED;
  if (count == 0) return ZOO_OK;
  return kernel->tokens(*call, team_for(count, threads, openmp));
}
