// The kernels of one dispatch level. The vectors come from the header included before this one.
#pragma once

#include "kernel.h"
// The order matters: each header uses the ones before it.
#include "elementary.h"
#include "gather.h"
#include "forward.h"
#include "backward_chunk.h"
#include "backward.h"
#include "depthwise.h"
#include "tokens.h"
#include "product_sums.h"
#include "half_products.h"
#include "rows.h"  // uses the four above
#include "tokens_gradient.h"
#include "gain.h"
#include "merge.h"

namespace {

int run_forward(const ZooScan& scan, void* y, const Team& team) {
  switch (scan.dtype) {
    case ZOO_BFLOAT16:
      return Forward<BFloat16>(scan, y).run(team);
    case ZOO_FLOAT16:
      return Forward<Float16>(scan, y).run(team);
    default:
      return Forward<Float32>(scan, y).run(team);
  }
}

template <class Format>
int run_backward_of(const ZooScan& scan, const ZooScanGradients& gradients, const Team& team) {
  const Kept kept(scan);
  if (scan.kept != nullptr || kept.chunks == 0) return Backward<Format>(scan, gradients).run(team);
  ZooScan keeping = scan;
  keeping.kept = static_cast<float*>(aligned_allocate(kept.floats(scan) * sizeof(float), false));
  if (keeping.kept == nullptr) return ZOO_OUT_OF_MEMORY;
  int status = Forward<Format>(keeping, nullptr).run(team);
  if (status == ZOO_OK) status = Backward<Format>(keeping, gradients).run(team);
  aligned_free(keeping.kept);
  return status;
}

int run_backward(const ZooScan& scan, const ZooScanGradients& gradients, const Team& team) {
  switch (scan.dtype) {
    case ZOO_BFLOAT16:
      return run_backward_of<BFloat16>(scan, gradients, team);
    case ZOO_FLOAT16:
      return run_backward_of<Float16>(scan, gradients, team);
    default:
      return run_backward_of<Float32>(scan, gradients, team);
  }
}

int run_depthwise(const ZooDepthwise& call, const float* grad, float* out, const Team& team) {
  return Depthwise(call, grad, out).run(team);
}

int run_depthwise_weights(const ZooDepthwise& call, const float* grad, float* weight, float* bias,
                          const Team& team) {
  return DepthwiseWeights(call, grad, weight, bias).run(team);
}

int run_tokens(const ZooTokens& call, const Team& team) { return TokenPass(call).run(team); }

int run_tokens_gradients(const ZooTokens& call, const ZooTokensGradients& gradients,
                         const Team& team) {
  return TokenGradients(call, gradients).run(team);
}

int run_gain(const ZooGain& call, const Team& team) { return Gain(call).run(team); }

int run_directions_mean(const ZooDirections& call, float* out, const Team& team) {
  return Directions(call).mean(team, out);
}

int run_directions_sum(const ZooDirections& call, const float* gate, float* out,
                       const Team& team) {
  return Directions(call).sum(team, gate, out);
}

int run_rows(const ZooRows& call, const Team& team) { return Rows(call).run(team); }

// Computes in the same groups as the recurrence, to measure the cost of its exponentials alone.
void run_exp(const float* in, float* out, int64_t count) {
  const Vector log2e = broadcast(kLog2E);
  constexpr int kGroup = 4 * kInterleave;
  int64_t i = 0;
  for (; i + kGroup * kLanes <= count; i += kGroup * kLanes) {
#pragma GCC unroll 4
    for (int j = 0; j < kGroup; j += kInterleave) {
      Vector power[kInterleave];
      decays<kInterleave, false>(log2e, in + i + j * kLanes, power);
#pragma GCC unroll 4
      for (int n = 0; n < kInterleave; ++n) store(out + i + (j + n) * kLanes, power[n]);
    }
  }
  for (; i < count; i += kLanes) {
    const int64_t left = count - i;
    const int width = left < kLanes ? static_cast<int>(left) : kLanes;
    const Vector x = read_lanes<Float32>(in + i, width);
    write_lanes<Float32>(out + i, exp2_product(x, log2e), width);
  }
}

void run_softplus(const float* in, float* out, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t left = count - i;
    const int width = left < kLanes ? static_cast<int>(left) : kLanes;
    write_lanes<Float32>(out + i, softplus(read_lanes<Float32>(in + i, width)), width);
  }
}

// The entry of a level in the table of kernels.
#define ZOO_KERNEL(name)                                                                       \
  {                                                                                            \
    name, run_forward, run_backward, run_depthwise, run_depthwise_weights, run_tokens,         \
        run_tokens_gradients, run_gain, run_directions_mean, run_directions_sum, run_rows,     \
        run_exp, run_softplus, kHalfProducts                                                   \
  }

}  // namespace
