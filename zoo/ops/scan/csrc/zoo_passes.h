/* Passes over the tokens of an image, and their gradients: a depthwise convolution with its
 * activation, sums, norms and gates of tokens, and the gain of a channel attention. Part of the
 * library's C interface; what zoo_scan.h says about statuses, levels, threads and openmp holds here
 * too.
 *
 * Shapes: B images, H height, W width, L tokens of an image, C channels. All tensors are float32,
 * where nothing else is said. Outputs are contiguous and overlap no input.
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
  int32_t x_dtype;     /* ZOO_FLOAT32, or ZOO_BFLOAT16 for a call without gradients */
  const void* x;       /* (B L, C), rows x_stride elements apart */
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

/* The gradients of a pass over tokens. `sum` and `out` are those of its results, contiguous; one of
 * them may be NULL. The others are written, contiguous; those that are NULL are not computed. The
 * call has the inputs of the pass and, if it has a norm and more than x in its sum, that sum. */
typedef struct ZooTokensGradients {
  const float* sum; /* (B L, C) */
  const float* out; /* (B L, C) */
  float* x;         /* (B L, C) */
  float* gain;      /* (B, C) */
  float* skip;      /* (B L, C) */
  float* scale;     /* (C) */
  float* weight;    /* (C) */
  float* bias;      /* (C) */
  float* gate;      /* (B L, C) */
} ZooTokensGradients;

/* gain = sigmoid(expand relu(reduce mean(x))) for each channel of an image; the mean is that of its
 * tokens. */
typedef struct ZooGain {
  int64_t images, tokens, channels, hidden;
  const float* x; /* (B L, C), rows x_stride elements apart */
  int64_t x_stride;
  const float* reduce_weight; /* (hidden, C) contiguous */
  const float* reduce_bias;   /* (hidden), or NULL */
  const float* expand_weight; /* (C, hidden) contiguous */
  const float* expand_bias;   /* (C), or NULL */
  float* out;                 /* (B, C) */
} ZooGain;

/* The separate outputs of the directions of a scan. */
typedef struct ZooDirections {
  int64_t images, tokens, directions, channels;
  float eps;
  const float* y;      /* (B, L, K, C) contiguous */
  const float* weight; /* of the norm, (C), or NULL */
  const float* bias;   /* of the norm, (C), or NULL */
} ZooDirections;

enum { ZOO_NORM = 0, ZOO_PRODUCT = 1, ZOO_DEPTHWISE = 2 };
enum { ZOO_MOST_STAGES = 8, ZOO_MOST_KERNEL = 63 };

/* One of several stages that follow one another. The previous stage, or x, gives the first `inputs`
 * channels of each token; the others of that stage are not read. Norm and convolution have as many
 * outputs as inputs.
 *   ZOO_NORM:       norm(v) * silu(gate), as in ZooTokens
 *   ZOO_PRODUCT:    weight v + bias + skip * scale, or activation(weight v + bias) without a skip
 *   ZOO_DEPTHWISE:  activation(conv(v)), as in ZooDepthwise, with a kernel of at most
 *                   ZOO_MOST_KERNEL; not the first stage */
typedef struct ZooStage {
  int32_t kind, activation; /* of a norm none */
  int64_t inputs, outputs;
  int64_t kernel, dilation; /* of a convolution, else 1 */
  float eps;
  const float* weight; /* (outputs) or NULL; (outputs, inputs); (outputs, kernel, kernel) */
  const float* bias;   /* (outputs), or NULL */
  const void* gate;    /* of a norm, (B L, outputs), rows gate_stride elements apart, or NULL */
  const float* skip;   /* of a product, (B L, outputs), rows skip_stride elements apart, or NULL */
  const float* scale;  /* of a product, (outputs), or NULL for 1 */
  int64_t gate_stride, skip_stride;
  int64_t first; /* where out begins among the outputs */
  void* out;     /* (B L, outputs - first) contiguous, or NULL if only the next stage reads it */
  int32_t gate_dtype, out_dtype; /* ZOO_FLOAT32 or ZOO_BFLOAT16 */
} ZooStage;

/* Stages over the rows of images. */
typedef struct ZooRows {
  int64_t batch, height, width;
  const void* x; /* (B L, inputs of the first stage), rows x_stride elements apart */
  int64_t x_stride;
  int32_t x_dtype; /* ZOO_FLOAT32 or ZOO_BFLOAT16 */
  int64_t count; /* of stages, 1 .. ZOO_MOST_STAGES */
  const ZooStage* stages;
  int32_t half; /* 0, or 1 to round the factors of products to bfloat16; sums stay float32 */
} ZooRows;

/* Whether a level has products of bfloat16 on this CPU, 0 or 1. */
ZOO_API int zoo_half_products(const char* level);

ZOO_API int zoo_rows(const ZooRows* call, const char* level, int threads, ZooOpenMP openmp);
ZOO_API int zoo_depthwise(const ZooDepthwise* call, float* out, const char* level, int threads,
                          ZooOpenMP openmp);
/* out = grad * activation'(conv(x)), the gradient of conv(x), from grad, that of the output; both
 * (B, H, W, C) contiguous. */
ZOO_API int zoo_depthwise_slope(const ZooDepthwise* call, const float* grad, float* out,
                                const char* level, int threads, ZooOpenMP openmp);
/* The gradients of weight (C, kernel, kernel) and, unless it is NULL, bias (C), from grad, that of
 * conv(x), (B, H, W, C) contiguous. */
ZOO_API int zoo_depthwise_weights(const ZooDepthwise* call, const float* grad, float* weight,
                                  float* bias, const char* level, int threads, ZooOpenMP openmp);
ZOO_API int zoo_tokens(const ZooTokens* call, const char* level, int threads, ZooOpenMP openmp);
ZOO_API int zoo_tokens_gradients(const ZooTokens* call, const ZooTokensGradients* gradients,
                                 const char* level, int threads, ZooOpenMP openmp);

ZOO_API int zoo_gain(const ZooGain* call, const char* level, int threads, ZooOpenMP openmp);

/* out (B, K, C) = the mean over tokens of norm(y). */
ZOO_API int zoo_directions_mean(const ZooDirections* call, float* out, const char* level,
                                int threads, ZooOpenMP openmp);
/* out (B, L, C) = the sum over directions of gate y; gate is (B, K, C) contiguous. */
ZOO_API int zoo_directions_sum(const ZooDirections* call, const float* gate, float* out,
                               const char* level, int threads, ZooOpenMP openmp);

#ifdef __cplusplus
}
#endif
#endif
