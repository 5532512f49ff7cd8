// The part of CUDA that our kernels use, on a CPU, so that tests run the same source without a GPU.
//
// Blocks run one after another. The threads of a block are fibers: each runs until it waits at
// __syncthreads, then the next one runs. So a missing barrier gives a wrong result, the same in
// every run. Races between two barriers are not found; use compute-sanitizer for them.
#pragma once

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define __global__
#define __device__
#define __shared__ static  // blocks never overlap
#define __restrict__
#define __launch_bounds__(...)

struct Index {
  unsigned x;
};
static Index threadIdx, blockIdx, blockDim;

using cudaStream_t = struct CUstream_st*;

namespace zoo {

using Stream = cudaStream_t;

namespace shim {

constexpr int kMostThreads = 1024;
constexpr size_t kStack = 32768;

struct Fiber {
  ucontext_t context;
  bool done;
};

static Fiber fibers[kMostThreads];
static ucontext_t scheduler;
static void (*body)(const void* kernel, const void* argument);
static const void *kernel, *argument;

inline void run_fiber() {
  body(kernel, argument);
  fibers[threadIdx.x].done = true;
}

inline char* stacks() {
  static char* memory = static_cast<char*>(malloc(kMostThreads * kStack));
  return memory;
}

inline void run_block(int threads) {
  for (int t = 0; t < threads; ++t) {
    Fiber& fiber = fibers[t];
    fiber.done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stacks() + t * kStack;
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, run_fiber, 0);
  }
  for (int running = threads; running > 0;) {
    int waiting = 0;
    for (int t = 0; t < threads; ++t) {
      if (fibers[t].done) continue;
      threadIdx.x = static_cast<unsigned>(t);
      swapcontext(&scheduler, &fibers[t].context);
      waiting += !fibers[t].done;
    }
    if (waiting != 0 && waiting != running) {
      fprintf(stderr, "a thread has left the kernel while others wait at a barrier\n");
      abort();
    }
    running = waiting;
  }
}

template <typename Argument>
void call(const void* kernel, const void* argument) {
  using Kernel = void (*)(Argument);
  reinterpret_cast<Kernel>(const_cast<void*>(kernel))(*static_cast<const Argument*>(argument));
}

inline float from_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
inline uint32_t to_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

}  // namespace shim

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

inline float to_float(float x) { return x; }
inline float to_float(BFloat16 x) { return shim::from_bits(uint32_t(x.bits) << 16); }
inline float to_float(Half x) {
  const uint32_t magnitude = uint32_t(x.bits & 0x7fff) << 13;
  const bool finite = magnitude < 0x0f800000;
  // The product corrects the bias of the exponent, also for denormal numbers.
  const float f = finite ? shim::from_bits(magnitude) * 0x1p112f
                         : shim::from_bits(magnitude | 0x7f800000);
  return (x.bits & 0x8000) != 0 ? -f : f;
}

inline void round_to(float* to, float x) { *to = x; }
inline void round_to(BFloat16* to, float x) {
  const uint32_t bits = shim::to_bits(x);
  const uint32_t nearest = bits + 0x7fff + ((bits >> 16) & 1);
  to->bits = static_cast<uint16_t>(isnan(x) ? 0x7fff : nearest >> 16);
}
inline void round_to(Half* to, float x) {
  const uint32_t sign = shim::to_bits(x) >> 31 << 15;
  const float magnitude = fabsf(x);
  uint32_t bits;
  if (isnan(x)) {
    bits = 0x7e00;
  } else if (magnitude >= 65520.0f) {
    bits = 0x7c00;
  } else if (magnitude < 0x1p-14f) {
    bits = shim::to_bits(magnitude + 0.5f) - shim::to_bits(0.5f);  // the sum rounds to 2^-24
  } else {
    bits = shim::to_bits(magnitude);
    bits = (bits + 0xfff + ((bits >> 13) & 1) - (112u << 23)) >> 13;
  }
  to->bits = static_cast<uint16_t>(bits | sign);
}

inline float power_of_2(float x) { return exp2f(x); }

template <typename Argument>
const char* launch(void (*kernel)(Argument), int64_t blocks, int threads, Stream,
                   Argument argument) {
  if (threads > shim::kMostThreads) return "too many threads in a block";
  shim::body = &shim::call<Argument>;
  shim::kernel = reinterpret_cast<const void*>(kernel);
  shim::argument = &argument;
  blockDim.x = static_cast<unsigned>(threads);
  for (int64_t block = 0; block < blocks; ++block) {
    blockIdx.x = static_cast<unsigned>(block);
    shim::run_block(threads);
  }
  shim::argument = nullptr;
  return nullptr;
}

inline const char* fill_with_zeros(void* memory, size_t bytes, Stream) {
  memset(memory, 0, bytes);
  return nullptr;
}

}  // namespace zoo

inline void __syncthreads() {
  const unsigned self = threadIdx.x;
  swapcontext(&zoo::shim::fibers[self].context, &zoo::shim::scheduler);
}
