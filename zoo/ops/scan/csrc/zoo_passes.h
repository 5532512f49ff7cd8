/* Passes over the tokens of an image, for networks that are not trained: a depthwise convolution
 * with its activation, and sums, norms and gates of tokens. Part of the library's C interface; what
 * zoo_scan.h says about statuses, levels, threads and openmp holds here too.
 *
 * Shapes: B images, H height, W width, L tokens of an image, C channels. All tensors are float32.
 * Outputs are contiguous and overlap no input.
 */
#ifndef ZOO_PASSES_H
#define ZOO_PASSES_H

#include "zoo_scan.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { ZOO_NO_ACTIVATION = 0, ZOO_SILU = 1, ZOO_GELU = 2 };

/* out = activation(conv(x)): zeros beyond the border, stride 1, output of the size of the input. */
typedef struct ZooDepthwise {
  int32_t activation;
  int64_t batch, height, width, channels;
  int64_t kernel, dilation; /* the kernel is odd and square */
  const float* x;           /* (B, H, W, C), the last dimension contiguous */
  int64_t x_stride[3];      /* image, row, column, in elements */
  const float* weight;      /* (C, kernel, kernel) contiguous */
  const float* bias;        /* (C), or NULL */
} ZooDepthwise;

/* For each token:  v = x * gain + skip * scale;  sum = v;  out = norm(v) * silu(gate).
 * norm(v) = (v - mean) / sqrt(variance + eps) * weight + bias. Every pointer but x may be NULL: its
 * term or factor is left out, and a result that has no place is not computed. */
typedef struct ZooTokens {
  int64_t images, tokens, channels;
  float eps;
  const float* x;      /* (B L, C), rows x_stride elements apart */
  const float* gain;   /* (B, C) contiguous */
  const float* skip;   /* (B L, C), rows skip_stride elements apart */
  const float* scale;  /* (C) */
  const float* weight; /* (C) */
  const float* bias;   /* (C) */
  const float* gate;   /* (B L, C), rows gate_stride elements apart */
  int64_t x_stride, skip_stride, gate_stride;
  float* sum; /* (B L, C) */
  float* out; /* (B L, C) */
} ZooTokens;

ZOO_API int zoo_depthwise(const ZooDepthwise* call, float* out, const char* level, int threads,
                          ZooOpenMP openmp);
ZOO_API int zoo_tokens(const ZooTokens* call, const char* level, int threads, ZooOpenMP openmp);

#ifdef __cplusplus
}
#endif
#endif
