// The selective scan over index lists on a GPU, forward pass only: parallel over the sequence.
//
// zoo/ops/scan/operator.py defines the operator. The steps of each (image, direction) are cut into
// chunks. `walk_chunks` first walks all chunks but the last from a zero state. `carry_states`
// combines the results into the state at each boundary between chunks. Then `walk_chunks` walks all
// chunks again from these states and writes y. Arithmetic and state are float32 for every dtype of
// tokens. The chunk length depends only on sizes. So the workspace size is known on a machine
// without a GPU, and the result is bit-identical in every run and on every GPU of the same kind.
//
// y per direction is written by one launch for all directions. The sum over directions has one
// launch per direction, each adding to the result of the previous one. So no two threads add to the
// same place, the order of the sum is fixed, and y per direction is never stored.
//
// A token that no direction visits gets 0. An entry of `order` outside 0 .. L-1 is a zero token:
// -1 by definition; any other because a kernel cannot report it and must not read out of bounds.
//
// Shapes: B batch, L tokens, K directions, S steps, E channels, R rank of the step, N states;
// J chunks, M = J - 1 boundaries between them. Tensors are contiguous.
#pragma once

#include <stdint.h>

#include "device.h"

namespace zoo {

struct Sizes {
  int64_t batch, tokens, directions, steps, channels, rank, states;
};

struct Tensors {
  const void *u, *delta, *B, *C;  // (B, L, E), (B, L, K, R), (B, L, K, N) twice
  const float *delta_weight, *delta_bias, *A, *D;  // (K, E, R), (K, E), (K, E, N), (K, E)
  const int32_t* order;                            // (K, S), or (B, K, S)
  int64_t order_stride;  // from one image's order to the next; 0 if all share one
  void* y;  // (B, L, K, E), or (B, L, E) if it is summed over directions
};

enum class Token { kFloat32, kFloat16, kBFloat16 };  // dtype of u, delta, B, C and y

constexpr int kMostStates = 32;

// Block and chunk sizes, chosen from the compiler's register counts; not yet measured on any GPU.
constexpr int kMostThreads = 128;  // of a block; a thread owns a channel
constexpr int kTile = 8;           // steps whose tokens a block reads at once
constexpr int kRanks = 16;         // ranks of the step that shared memory holds at once
constexpr int kShortest = 32, kLongest = 128;  // steps of a chunk
constexpr int64_t kWarps = 4096;  // target for one direction, as far as kShortest allows

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// The widest block that needs at most 10 % more threads than the narrowest.
inline int block_width(int64_t channels) {
  const int64_t least = divide_up(channels, 32) * 32;
  int width = kMostThreads;
  while (width > 32 && divide_up(channels, width) * width * 10 > least * 11) width /= 2;
  return width;
}

struct Cut {
  int threads;             // of a block
  int64_t blocks;          // across channels
  int64_t length, chunks;  // steps of a chunk, number of chunks
};

inline Cut cut_up(const Sizes& size) {
  const int threads = block_width(size.channels);
  const int64_t blocks = divide_up(size.channels, threads);
  const int64_t warps = larger(1, size.batch * blocks * (threads / 32));  // of one chunk
  const int64_t wanted =
      smaller(divide_up(size.steps, kShortest), divide_up(kWarps, warps));
  const int64_t chunks = larger(1, larger(divide_up(size.steps, kLongest), wanted));
  const int64_t length = larger(kTile, divide_up(divide_up(size.steps, chunks), kTile) * kTile);
  return {threads, blocks, length, larger(1, divide_up(size.steps, length))};
}

// Offsets in the workspace, in floats; each is aligned for the widest memory accesses.
struct Workspace {
  int64_t states;  // (B, K, M, N, E) state at each boundary
  int64_t totals;  // (B, K, M, E) sum of the steps of the chunk before it
  int64_t sum;     // (B, L, E) sum over directions in float32, unless y itself holds it
  int64_t floats;  // total size

  Workspace(const Sizes& size, int64_t boundaries, bool sums) {
    const int64_t rows = boundaries * size.directions * size.channels;
    states = 0;
    totals = states + divide_up(rows * size.states, 64) * 64;
    sum = totals + divide_up(rows, 64) * 64;
    floats = sum + (sums ? divide_up(size.batch * size.tokens * size.channels, 64) * 64 : 0);
  }
};

inline bool sums_apart(Token token, bool summed) { return summed && token != Token::kFloat32; }

// Bytes that are enough for every call whose sizes are at most these, with the same channels,
// states and directions. This can exceed the need of these sizes, because a smaller batch may have
// shorter chunks, and so more boundaries.
inline size_t most_workspace(const Sizes& size, Token token, bool summed) {
  const Cut most = cut_up(size);
  const int64_t warps = most.blocks * (most.threads / 32);
  const int64_t wanted = smaller(size.batch * divide_up(size.steps, kShortest),
                                 divide_up(kWarps, warps) + size.batch);
  const int64_t boundaries = larger(size.batch * divide_up(size.steps, kLongest), wanted);
  const Workspace place(size, boundaries, sums_apart(token, summed));
  return static_cast<size_t>(place.floats) * sizeof(float);
}

// ---- Kernels ----

struct Walk {
  Tensors given;
  float *at_boundaries, *totals, *sum;  // parts of the workspace; sum may be y itself, or null
  int batch, tokens, directions, steps, channels, rank, states;
  int blocks, length, boundaries;
  int chunks, first, walked;  // of this launch: chunks 0 .. and directions first ..
};

__device__ inline float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }

// Blocks of walk_chunks that a multiprocessor must hold; 0: as many as the compiler likes. On 8.6 to
// 8.9 it likes six, which leaves 80 registers a thread, and these kernels spill. Five leave 96.
template <typename T, int kStates, bool kWrite>
constexpr int least_blocks() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 860 && __CUDA_ARCH__ < 900
  if (kWrite && kStates == (sizeof(T) == sizeof(float) ? 8 : 12)) return 5;
#endif
  return 0;
}

// Walks one chunk for the channels of a block; a thread holds all states of its channel. If kWrite,
// it starts from the state before the chunk and writes y; otherwise it starts from zero and writes
// the state after the chunk.
template <typename T, int kStates, bool kWrite>
__global__ void __launch_bounds__(kMostThreads, (least_blocks<T, kStates, kWrite>()))
    walk_chunks(Walk walk) {
  alignas(16) __shared__ float B_tile[kTile][kStates];
  alignas(16) __shared__ float C_tile[kTile][kStates];
  alignas(16) __shared__ float delta_tile[kRanks][kTile];
  __shared__ float weight_columns[kRanks][kMostThreads];  // one column per thread
  __shared__ int token_tile[kTile];

  const int lane = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  int index = static_cast<int>(blockIdx.x);
  const int channel = index % walk.blocks * threads + lane;
  index /= walk.blocks;
  const int chunk = index % walk.chunks;
  index /= walk.chunks;
  const int64_t k = walk.first + index % walk.walked;
  const int64_t b = index / walk.walked;
  const bool owns = channel < walk.channels;
  const int e = owns ? channel : walk.channels - 1;  // the others compute the last one but write nothing

  const int64_t row = b * walk.tokens;  // of tokens
  const T* const u = static_cast<const T*>(walk.given.u) + row * walk.channels + e;
  const int64_t first_k = row * walk.directions + k;
  const T* const delta = static_cast<const T*>(walk.given.delta) + first_k * walk.rank;
  const T* const B = static_cast<const T*>(walk.given.B) + first_k * walk.states;
  const T* const C = static_cast<const T*>(walk.given.C) + first_k * walk.states;
  const int32_t* const order =
      walk.given.order + b * walk.given.order_stride + k * walk.steps;

  const int64_t channel_k = k * walk.channels + e;
  const float* const weight = walk.given.delta_weight + channel_k * walk.rank;
  const float bias = walk.given.delta_bias[channel_k];
  const float D = kWrite ? walk.given.D[channel_k] : 0.0f;
  const bool kept = walk.rank <= kRanks;  // the weight fits, so it is read once
  for (int r = 0; kept && r < walk.rank; ++r) weight_columns[r][lane] = weight[r];

  // The state before this chunk (kWrite) or after it; the state after the last chunk is not stored.
  const int64_t boundary =
      (b * walk.directions + k) * walk.boundaries + chunk - (kWrite ? 1 : 0);
  float* const state = walk.at_boundaries + boundary * walk.states * walk.channels + e;
  float rate[kStates], h[kStates];
#pragma unroll
  for (int n = 0; n < kStates; ++n) {
    const bool real = n < walk.states;
    rate[n] = real ? walk.given.A[channel_k * walk.states + n] * 1.44269504f : 0.0f;
    h[n] = kWrite && real && chunk > 0 ? state[int64_t(n) * walk.channels] : 0.0f;
  }

  float total = 0.0f;
  const int begin = chunk * walk.length;
  const int end = walk.steps - begin < walk.length ? walk.steps : begin + walk.length;
  for (int start = begin; start < end; start += kTile) {
    __syncthreads();  // the last tile has been used
    if (lane < kTile) {
      const int entry = start + lane < end ? order[start + lane] : -1;
      token_tile[lane] = entry >= 0 && entry < walk.tokens ? entry : -1;
    }
    __syncthreads();
    for (int i = lane; i < kTile * kStates; i += threads) {
      const int t = i / kStates, n = i % kStates, token = token_tile[t];
      const bool real = token >= 0 && n < walk.states;
      const int64_t place = int64_t(token) * walk.directions * walk.states + n;
      B_tile[t][n] = real ? to_float(B[place]) : 0.0f;
      if (kWrite) C_tile[t][n] = real ? to_float(C[place]) : 0.0f;
    }
    float u_tile[kTile], raw[kTile];
#pragma unroll
    for (int t = 0; t < kTile; ++t) {
      const int token = token_tile[t];
      u_tile[t] = token >= 0 ? to_float(u[int64_t(token) * walk.channels]) : 0.0f;
      raw[t] = bias;
    }
    for (int first = 0; first < walk.rank; first += kRanks) {
      if (first > 0) __syncthreads();
      for (int i = lane; i < kTile * kRanks; i += threads) {
        const int t = i / kRanks, r = i % kRanks, token = token_tile[t];
        const bool real = token >= 0 && first + r < walk.rank;
        const int64_t place = int64_t(token) * walk.directions * walk.rank + first + r;
        delta_tile[r][t] = real ? to_float(delta[place]) : 0.0f;
      }
      __syncthreads();
      const int ranks = walk.rank - first < kRanks ? walk.rank - first : kRanks;
      for (int r = 0; r < ranks; ++r) {
        const float w = kept ? weight_columns[r][lane] : weight[first + r];
#pragma unroll
        for (int t = 0; t < kTile; ++t) raw[t] = fmaf(w, delta_tile[r][t], raw[t]);
      }
    }
#pragma unroll
    for (int t = 0; t < kTile; ++t) {
      // After the end there are zero tokens. They change the state, but only the last chunk ends
      // within a tile, and its final state is not used.
      const float step = softplus(raw[t]);
      const float scaled = step * u_tile[t];
      float y = D * u_tile[t];
#pragma unroll
      for (int n = 0; n < kStates; ++n) {
        h[n] = fmaf(power_of_2(step * rate[n]), h[n], scaled * B_tile[t][n]);
        if (kWrite) y = fmaf(h[n], C_tile[t][n], y);
      }
      total += step;
      const int token = token_tile[t];
      if (kWrite && owns && token >= 0) {
        if (walk.sum != nullptr) {
          walk.sum[(row + token) * walk.channels + e] += y;
        } else {
          const int64_t place = (row + token) * walk.directions + k;
          round_to(static_cast<T*>(walk.given.y) + place * walk.channels + e, y);
        }
      }
    }
  }

  if (!kWrite && owns) {
    walk.totals[boundary * walk.channels + e] = total;
#pragma unroll
    for (int n = 0; n < kStates; ++n) {
      if (n < walk.states) state[int64_t(n) * walk.channels] = h[n];
    }
  }
}

// Runs the recurrence over chunks, in place: what each chunk adds becomes the state after it. A
// thread owns one state of one channel.
static __global__ void __launch_bounds__(kMostThreads) carry_states(Walk walk) {
  constexpr int kAhead = 8;  // boundaries that are read ahead
  int index = static_cast<int>(blockIdx.x);
  const int e = index % walk.blocks * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x);
  index /= walk.blocks;
  const int n = index % walk.states;
  const int64_t bk = index / walk.states;
  if (e >= walk.channels) return;

  const int64_t channel_k = bk % walk.directions * walk.channels + e;
  const float rate = walk.given.A[channel_k * walk.states + n] * 1.44269504f;
  const int64_t apart = int64_t(walk.states) * walk.channels;
  float* const states = walk.at_boundaries + bk * walk.boundaries * apart + int64_t(n) * walk.channels + e;
  const float* const totals = walk.totals + bk * walk.boundaries * walk.channels + e;
  float h = 0.0f;
  for (int first = 0; first < walk.boundaries; first += kAhead) {
    float added[kAhead], total[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const bool real = first + i < walk.boundaries;
      added[i] = real ? states[(first + i) * apart] : 0.0f;
      total[i] = real ? totals[int64_t(first + i) * walk.channels] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      h = fmaf(power_of_2(total[i] * rate), h, added[i]);
      if (first + i < walk.boundaries) states[(first + i) * apart] = h;
    }
  }
}

struct Rounding {
  const float* from;
  void* to;
  int64_t count;
};

template <typename T>
__global__ void __launch_bounds__(kMostThreads) round_sum(Rounding sum) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < sum.count) round_to(static_cast<T*>(sum.to) + i, sum.from[i]);
}

// ---- Launches ----

template <typename T, int kStates>
const char* walk_all(Walk walk, const Cut& cut, bool summed, Stream stream) {
  const int64_t across = cut.blocks * walk.batch;
  const int all = walk.directions;
  const char* failure = nullptr;
  if (walk.boundaries > 0) {
    Walk left = walk;
    left.chunks = walk.boundaries;  // the state after the last chunk is not needed
    failure = launch(walk_chunks<T, kStates, false>, across * left.chunks * all, cut.threads,
                     stream, left);
    if (failure == nullptr) {
      failure = launch(carry_states, across * all * walk.states, cut.threads, stream, walk);
    }
  }
  const int together = summed ? 1 : all;
  walk.walked = together;
  for (walk.first = 0; failure == nullptr && walk.first < all; walk.first += together) {
    failure = launch(walk_chunks<T, kStates, true>, across * walk.chunks * together, cut.threads,
                     stream, walk);
  }
  return failure;
}

template <typename T>
const char* scan_tokens(Walk walk, const Cut& cut, bool summed, Stream stream) {
  const int64_t count = int64_t(walk.batch) * walk.tokens * walk.channels;
  const bool apart = walk.sum != nullptr && walk.sum != walk.given.y;
  const char* failure =
      apart ? fill_with_zeros(walk.sum, static_cast<size_t>(count) * sizeof(float), stream)
            : fill_with_zeros(walk.given.y,
                              static_cast<size_t>(count * (summed ? 1 : walk.directions)) *
                                  sizeof(T),
                              stream);
  if (failure == nullptr && walk.steps > 0) {
    const int states = walk.states;
    failure = states <= 8    ? walk_all<T, 8>(walk, cut, summed, stream)
              : states <= 12 ? walk_all<T, 12>(walk, cut, summed, stream)
              : states <= 16 ? walk_all<T, 16>(walk, cut, summed, stream)
                             : walk_all<T, 32>(walk, cut, summed, stream);
  }
  if (failure == nullptr && apart) {
    failure = launch(round_sum<T>, divide_up(count, kMostThreads), kMostThreads, stream,
                     Rounding{walk.sum, walk.given.y, count});
  }
  return failure;
}

// Starts the scan on a stream: y per direction, or `summed` over directions. `workspace` has at
// least the size from most_workspace. Returns null, or why the scan did not start.
inline const char* selective_scan(const Sizes& size, const Tensors& given, Token token, bool summed,
                                  void* workspace, Stream stream) {
  if (size.states < 1 || size.states > kMostStates) return "the number of states is not 1 .. 32";
  if (size.batch * size.tokens * size.channels * size.directions == 0) return nullptr;
  const Cut cut = cut_up(size);
  const int64_t most = INT32_MAX;
  if (size.tokens > most || size.steps > most || size.directions * size.channels > most ||
      cut.blocks * size.batch * size.directions * larger(cut.chunks, size.states) > most) {
    return "the image is too large for one launch";
  }
  const int64_t boundaries = cut.chunks - 1;
  const bool apart = sums_apart(token, summed);
  const Workspace place(size, size.batch * boundaries, apart);
  float* const memory = static_cast<float*>(workspace);

  Walk walk = {};
  walk.given = given;
  walk.at_boundaries = memory + place.states;
  walk.totals = memory + place.totals;
  walk.sum = apart ? memory + place.sum : summed ? static_cast<float*>(given.y) : nullptr;
  walk.batch = static_cast<int>(size.batch);
  walk.tokens = static_cast<int>(size.tokens);
  walk.directions = static_cast<int>(size.directions);
  walk.steps = static_cast<int>(size.steps);
  walk.channels = static_cast<int>(size.channels);
  walk.rank = static_cast<int>(size.rank);
  walk.states = static_cast<int>(size.states);
  walk.blocks = static_cast<int>(cut.blocks);
  walk.length = static_cast<int>(cut.length);
  walk.chunks = static_cast<int>(cut.chunks);
  walk.boundaries = static_cast<int>(boundaries);
  walk.walked = walk.directions;
  switch (token) {
    case Token::kFloat32: return scan_tokens<float>(walk, cut, summed, stream);
    case Token::kFloat16: return scan_tokens<Half>(walk, cut, summed, stream);
    default: return scan_tokens<BFloat16>(walk, cut, summed, stream);
  }
}

}  // namespace zoo
