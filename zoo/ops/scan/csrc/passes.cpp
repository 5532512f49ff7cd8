// The C interface of the passes: checks a call and chooses the dispatch level.

#include "zoo_passes.h"

#include "kernel.h"

namespace {

// Elements that make an additional thread worth its cost.
constexpr int64_t kElementsPerThread = 32768;
// Sizes beyond this could overflow the numbers of elements that the kernels compute.
constexpr int64_t kMostElements = int64_t(1) << 48;

bool known(int32_t dtype) { return dtype == ZOO_FLOAT32 || dtype == ZOO_BFLOAT16; }
bool aligned(const void* tensor, int32_t dtype) {
  const uintptr_t size = dtype == ZOO_BFLOAT16 ? 2 : sizeof(float);
  return reinterpret_cast<uintptr_t>(tensor) % size == 0;
}

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

// Checks a convolution, and chooses its kernel and team. `tensors`: those beside the call's own.
template <int kCount>
int begin(const ZooDepthwise* call, const float* const (&tensors)[kCount], const char* level,
          int threads, ZooOpenMP openmp, const Kernel** kernel, Team* team) {
  const int status = find_kernel(level, kernel);
  if (status != ZOO_OK) return status;
  const int64_t count = elements({call->batch, call->height, call->width, call->channels});
  const int64_t taps = elements({call->channels, call->kernel, call->kernel});
  const bool odd = call->kernel > 0 && call->kernel % 2 == 1;
  if (count < 0 || taps < 0 || !odd || call->dilation < 1) return ZOO_WRONG_SIZE;
  if (call->dilation > kMostElements / call->kernel) return ZOO_WRONG_SIZE;
  if (call->activation < ZOO_NO_ACTIVATION || call->activation > ZOO_GELU) return ZOO_WRONG_SIZE;
  const float* own[] = {call->x, call->weight, call->bias};
  if (!aligned(own) || !aligned(tensors)) return ZOO_MISALIGNED;
  *team = team_for(count, threads, openmp);
  return ZOO_OK;
}

// The same for a pass over tokens.
template <int kCount>
int begin(const ZooTokens* call, const float* const (&tensors)[kCount], const char* level,
          int threads, ZooOpenMP openmp, const Kernel** kernel, Team* team) {
  const int status = find_kernel(level, kernel);
  if (status != ZOO_OK) return status;
  const int64_t count = elements({call->images, call->tokens, call->channels});
  if (count < 0 || !known(call->x_dtype)) return ZOO_WRONG_SIZE;
  const float* own[] = {call->gain, call->skip, call->scale, call->weight,
                        call->bias, call->gate, call->sum,   call->out};
  if (!aligned(call->x, call->x_dtype)) return ZOO_MISALIGNED;
  if (!aligned(own) || !aligned(tensors)) return ZOO_MISALIGNED;
  *team = team_for(count, threads, openmp);
  return ZOO_OK;
}

// The same for the directions of a scan.
template <int kCount>
int begin(const ZooDirections* call, const float* const (&tensors)[kCount], const char* level,
          int threads, ZooOpenMP openmp, const Kernel** kernel, Team* team) {
  const int status = find_kernel(level, kernel);
  if (status != ZOO_OK) return status;
  const int64_t count = elements({call->images, call->tokens, call->directions, call->channels});
  if (count < 0) return ZOO_WRONG_SIZE;
  const float* own[] = {call->y, call->weight, call->bias};
  if (!aligned(own) || !aligned(tensors)) return ZOO_MISALIGNED;
  *team = team_for(count, threads, openmp);
  return ZOO_OK;
}

// Checks a stage that gets `given` channels for each token.
int check_stage(const ZooStage& stage, int64_t given, int64_t tokens, bool first) {
  const bool product = stage.kind == ZOO_PRODUCT, wide = stage.kind == ZOO_DEPTHWISE;
  if (!product && !wide && stage.kind != ZOO_NORM) return ZOO_WRONG_SIZE;
  if (stage.inputs < 1 || stage.inputs > given || stage.outputs < 1) return ZOO_WRONG_SIZE;
  if (!product && stage.inputs != stage.outputs) return ZOO_WRONG_SIZE;
  if (stage.first < 0 || stage.first >= stage.outputs) return ZOO_WRONG_SIZE;
  const bool odd = stage.kernel > 0 && stage.kernel % 2 == 1;
  if (!odd || stage.kernel > ZOO_MOST_KERNEL || stage.dilation < 1) return ZOO_WRONG_SIZE;
  if (first && wide) return ZOO_WRONG_SIZE;
  if (!wide && (stage.kernel != 1 || stage.dilation != 1)) return ZOO_WRONG_SIZE;
  if (stage.dilation > kMostElements / stage.kernel) return ZOO_WRONG_SIZE;
  if (stage.activation < ZOO_NO_ACTIVATION || stage.activation > ZOO_GELU) return ZOO_WRONG_SIZE;
  const bool plain = stage.kind == ZOO_NORM || (product && stage.skip != nullptr);
  if (plain && stage.activation != ZOO_NO_ACTIVATION) return ZOO_WRONG_SIZE;
  if ((product || wide) && stage.weight == nullptr) return ZOO_WRONG_SIZE;
  if (stage.gate != nullptr && stage.kind != ZOO_NORM) return ZOO_WRONG_SIZE;
  if ((stage.skip != nullptr || stage.scale != nullptr) && !product) return ZOO_WRONG_SIZE;
  const int64_t weights = product ? elements({stage.inputs, stage.outputs})
                                  : elements({stage.outputs, stage.kernel, stage.kernel});
  // The rows that a convolution reads, with their margins.
  const int64_t span = (stage.kernel - 1) * stage.dilation + 1;
  const int64_t read = elements({tokens + span, span, stage.outputs});
  if (weights < 0 || read < 0 || elements({tokens, stage.outputs}) < 0) return ZOO_WRONG_SIZE;
  if (!known(stage.gate_dtype) || !known(stage.out_dtype)) return ZOO_WRONG_SIZE;
  const float* own[] = {stage.weight, stage.bias, stage.skip, stage.scale};
  const bool right = aligned(own) && aligned(stage.gate, stage.gate_dtype) &&
                     aligned(stage.out, stage.out_dtype);
  return right ? ZOO_OK : ZOO_MISALIGNED;
}

bool empty(const ZooDepthwise* call) {
  return call->batch == 0 || call->height == 0 || call->width == 0 || call->channels == 0;
}
bool empty(const ZooDirections* call) {
  return call->images == 0 || call->tokens == 0 || call->directions == 0 || call->channels == 0;
}
bool empty(const ZooTokens* call) {
  return call->images == 0 || call->tokens == 0 || call->channels == 0;
}

}  // namespace

int zoo_depthwise(const ZooDepthwise* call, float* out, const char* level, int threads,
                  ZooOpenMP openmp) {
  const Kernel* kernel = nullptr;
  Team team;
  const int status = begin(call, {out}, level, threads, openmp, &kernel, &team);
  if (status != ZOO_OK || empty(call)) return status;
  return kernel->depthwise(*call, nullptr, out, team);
}

int zoo_depthwise_slope(const ZooDepthwise* call, const float* grad, float* out, const char* level,
                        int threads, ZooOpenMP openmp) {
  const Kernel* kernel = nullptr;
  Team team;
  const int status = begin(call, {grad, out}, level, threads, openmp, &kernel, &team);
  if (status != ZOO_OK || empty(call)) return status;
  return kernel->depthwise(*call, grad, out, team);
}

int zoo_depthwise_weights(const ZooDepthwise* call, const float* grad, float* weight, float* bias,
                          const char* level, int threads, ZooOpenMP openmp) {
  const Kernel* kernel = nullptr;
  Team team;
  const int status = begin(call, {grad, weight, bias}, level, threads, openmp, &kernel, &team);
  if (status != ZOO_OK || empty(call)) return status;
  return kernel->depthwise_weights(*call, grad, weight, bias, team);
}

int zoo_half_products(const char* level) {
  const Kernel* kernel = nullptr;
  return find_kernel(level, &kernel) == ZOO_OK && has_half_products(*kernel) ? 1 : 0;
}

int zoo_rows(const ZooRows* call, const char* level, int threads, ZooOpenMP openmp) {
  const Kernel* kernel = nullptr;
  int status = find_kernel(level, &kernel);
  if (status != ZOO_OK) return status;
  if ((call->half != 0 && call->half != 1) || !known(call->x_dtype)) return ZOO_WRONG_SIZE;
  if (call->half == 1 && !has_half_products(*kernel)) return ZOO_UNSUPPORTED_LEVEL;
  const int64_t tokens = elements({call->batch, call->height, call->width});
  if (tokens < 0 || call->count < 1 || call->count > ZOO_MOST_STAGES) return ZOO_WRONG_SIZE;
  if (!aligned(call->x, call->x_dtype)) return ZOO_MISALIGNED;
  int64_t given = call->stages[0].inputs, channels = 0;
  for (int64_t i = 0; i < call->count && status == ZOO_OK; ++i) {
    status = check_stage(call->stages[i], given, tokens, i == 0);
    given = call->stages[i].outputs;
    channels += given;
  }
  if (status != ZOO_OK || tokens == 0) return status;
  const int64_t count = elements({tokens, channels});
  return count < 0 ? ZOO_WRONG_SIZE : kernel->rows(*call, team_for(count, threads, openmp));
}

int zoo_gain(const ZooGain* call, const char* level, int threads, ZooOpenMP openmp) {
  const Kernel* kernel = nullptr;
  const int status = find_kernel(level, &kernel);
  if (status != ZOO_OK) return status;
  const int64_t count = elements({call->images, call->tokens, call->channels});
  const int64_t weights = elements({call->images, call->channels, call->hidden});
  if (count < 0 || weights < 0 || call->hidden < 1) return ZOO_WRONG_SIZE;
  const float* own[] = {call->x,           call->reduce_weight, call->reduce_bias,
                        call->expand_weight, call->expand_bias, call->out};
  if (!aligned(own)) return ZOO_MISALIGNED;
  if (count == 0) return ZOO_OK;
  return kernel->gain(*call, team_for(count, threads, openmp));
}

int zoo_directions_mean(const ZooDirections* call, float* out, const char* level, int threads,
                        ZooOpenMP openmp) {
  const Kernel* kernel = nullptr;
  Team team;
  const int status = begin(call, {out}, level, threads, openmp, &kernel, &team);
  if (status != ZOO_OK || empty(call)) return status;
  return kernel->directions_mean(*call, out, team);
}

int zoo_directions_sum(const ZooDirections* call, const float* gate, float* out, const char* level,
                       int threads, ZooOpenMP openmp) {
  const Kernel* kernel = nullptr;
  Team team;
  const int status = begin(call, {gate, out}, level, threads, openmp, &kernel, &team);
  if (status != ZOO_OK || empty(call)) return status;
  return kernel->directions_sum(*call, gate, out, team);
}

int zoo_tokens(const ZooTokens* call, const char* level, int threads, ZooOpenMP openmp) {
  const Kernel* kernel = nullptr;
  Team team;
  const int status = begin(call, {call->out}, level, threads, openmp, &kernel, &team);
  if (status != ZOO_OK || empty(call)) return status;
  return kernel->tokens(*call, team);
}

int zoo_tokens_gradients(const ZooTokens* call, const ZooTokensGradients* gradients,
                         const char* level, int threads, ZooOpenMP openmp) {
  const Kernel* kernel = nullptr;
  Team team;
  const ZooTokensGradients& g = *gradients;
  const int status = begin(
      call, {g.sum, g.out, g.x, g.gain, g.skip, g.scale, g.weight, g.bias, g.gate}, level, threads,
      openmp, &kernel, &team);
  if (status != ZOO_OK) return status;
  // A gradient of the inputs needs one of the results, and those of the factors what they multiply.
  if (call->x_dtype != ZOO_FLOAT32) return ZOO_WRONG_SIZE;
  if (g.sum == nullptr && g.out == nullptr) return ZOO_WRONG_SIZE;
  if (g.scale != nullptr && call->skip == nullptr) return ZOO_WRONG_SIZE;
  if (empty(call)) return ZOO_OK;
  return kernel->tokens_gradients(*call, g, team);
}
