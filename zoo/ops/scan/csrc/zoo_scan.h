/* The selective scan over index lists, on a CPU: the library's plain C interface.
 *
 * Shapes: B batch, L tokens, K directions, S steps, E channels, R rank of the low-rank step,
 * N states. The operator is defined in zoo/ops/scan/operator.py. The library keeps no state, links
 * only libc and may be called from several threads at once.
 */
#ifndef ZOO_SCAN_H
#define ZOO_SCAN_H

#include <stdint.h>

#if defined(_WIN32)
#define ZOO_API __declspec(dllexport)
#else
#define ZOO_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum { ZOO_FLOAT32 = 0, ZOO_BFLOAT16 = 1, ZOO_FLOAT16 = 2 };

enum {
  ZOO_OK = 0,
  ZOO_UNKNOWN_LEVEL = 1,     /* no dispatch level has that name */
  ZOO_UNSUPPORTED_LEVEL = 2, /* this CPU cannot run that level, or the library lacks it */
  ZOO_OUT_OF_MEMORY = 3,
  /* One is negative; K, N or R is 0; R is not E without delta_weight; or that of what is kept. */
  ZOO_WRONG_SIZE = 4,
  ZOO_WRONG_ENTRY = 5,    /* an entry of the order is outside -1 .. L-1 */
  ZOO_REPEATED_TOKEN = 6, /* a direction visits a token twice */
  ZOO_MISALIGNED = 7      /* a tensor starts between two elements */
};

/* The forward pass can keep the states that the backward pass starts from: those before every step
 * whose number is a multiple of this, but the first. */
enum { ZOO_KEPT_STEPS = 32 };

/* Strides are in elements; the last dimension of every tensor is contiguous. */
typedef struct ZooScan {
  int32_t dtype;  /* of u, delta, B, C and y */
  int32_t reduce; /* sum y over directions */
  int64_t batch, tokens, directions, steps, channels, rank, states;
  const void* u;     /* (B, L, E) */
  const void* delta; /* (B, L, K, R), or (B, L, K, E) without delta_weight */
  const void* B;     /* (B, L, K, N) */
  const void* C;     /* (B, L, K, N) */
  const float* delta_weight; /* (K, E, R) contiguous, or NULL */
  const float* delta_bias;   /* (K, E) contiguous */
  const float* A;            /* (K, E, N) contiguous, negative */
  const float* D;            /* (K, E) contiguous */
  const int32_t* order;      /* (K, S) contiguous, entries -1 .. L-1, none twice in a direction */
  int64_t order_stride;      /* from one image's order to the next; 0 if all share one */
  int64_t u_stride[2];       /* batch, token */
  int64_t delta_stride[3];   /* batch, token, direction */
  int64_t B_stride[3];
  int64_t C_stride[3];
  /* (B, K, (S - 1) / ZOO_KEPT_STEPS, N, E) contiguous, or NULL: the forward pass writes what the
   * backward pass of the same scan reads. Without it, the backward pass scans once more. */
  float* kept;
  int64_t kept_floats; /* its size */
} ZooScan;

/* The gradient of y, with strides, and the gradients of the inputs, which are written: contiguous
 * tensors with the shapes of the inputs. delta_weight may be NULL if the scan has none. */
typedef struct ZooScanGradients {
  const void* y;       /* (B, L, K, E), or (B, L, E) with reduce */
  int64_t y_stride[3]; /* batch, token, direction (0 with reduce) */
  void *u, *delta, *B, *C;
  float *delta_weight, *delta_bias, *A, *D;
} ZooScanGradients;

/* GNU OpenMP's function that runs `body` on all threads of a team; see threads.h. */
typedef void (*ZooOpenMP)(void (*body)(void*), void* context, unsigned threads, unsigned flags);

/* Computes y, contiguous (B, L, K, E) or, with reduce, (B, L, E), and what the scan keeps. Every
 * element is written, or none if the call fails. Each entry of the order is read once and checked:
 * the kernel stays within the tensors that the structure describes, even if another thread changes
 * the order meanwhile.
 * level: "avx512", "avx2", "neon" or "portable"; NULL means the value of the environment variable
 * ZOO_NATIVE_LEVEL or, if that is unset or empty, the best level that this CPU runs. The result
 * depends on the level but not on the number of threads. */
ZOO_API int zoo_scan_forward(const ZooScan* scan, void* y, const char* level, int threads,
                             ZooOpenMP openmp);

/* Computes all gradients. Every element is written. */
ZOO_API int zoo_scan_backward(const ZooScan* scan, const ZooScanGradients* gradients,
                              const char* level, int threads, ZooOpenMP openmp);

/* Name of the dispatch level that a call with this `level` would use, or NULL if it would fail. */
ZOO_API const char* zoo_scan_level(const char* level);

/* The elementary functions of a level, for tests and to measure the cost of exponentials:
 * out[i] = exp(in[i]) for in[i] <= 0, or softplus(in[i]), for `count` floats, `repeat` times. */
ZOO_API int zoo_scan_exp(const float* in, float* out, int64_t count, int64_t repeat,
                         const char* level);
ZOO_API int zoo_scan_softplus(const float* in, float* out, int64_t count, int64_t repeat,
                              const char* level);

#ifdef __cplusplus
}
#endif
#endif
