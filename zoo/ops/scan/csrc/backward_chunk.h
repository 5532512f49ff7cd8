// A chunk of the backward pass: its memory, and its two walks, forward and backward. Shapes in
// comments: see gather.h; G tiles of a group.
#pragma once

namespace {

// Target for images times groups: each group costs L K (R + 2 N) floats for its sums.
constexpr int64_t kBackwardTasks = 4;

struct Groups {
  int64_t most_tiles, count, chunks;

  Groups(const ZooScan& scan, const Sizes& sizes) {
    const int64_t wanted = scan.batch ? (kBackwardTasks + scan.batch - 1) / scan.batch : 1;
    most_tiles = sizes.tiles > wanted ? (sizes.tiles + wanted - 1) / wanted : 1;
    count = (sizes.tiles + most_tiles - 1) / most_tiles;
    chunks = (scan.steps + kChunk - 1) / kChunk;
  }
};

// Memory of a thread for each tile of its group.
struct BackwardTile {
  Parameters parameters;
  float* checkpoints;   // (chunks + 1, P, W): the state before each chunk, and at the end
  float* carry;         // (P, W): gradient of the state, passed from chunk to chunk
  float* graw;          // (T, W)

  BackwardTile(const ZooScan& scan, const Sizes& sizes, const Groups& groups, Arena* arena)
      : parameters(scan, sizes, arena),
        checkpoints(arena->floats((groups.chunks + 1) * sizes.padded_states * kLanes)),
        carry(arena->floats(sizes.padded_states * kLanes)),
        graw(arena->floats(kChunk * kLanes)) {}
};

// Gradients of the parameters of one image, direction and tile, as vectors over channels.
struct ParameterGradients {
  float *A, *weight, *bias, *D;  // (P, W), (R, W), (W), (W)

  ParameterGradients(const Sizes& sizes, float* rows) {
    A = rows;
    weight = A + sizes.padded_states * kLanes;
    bias = weight + sizes.rank * kLanes;
    D = bias + kLanes;
  }
  static int64_t floats(const Sizes& sizes) {
    return (sizes.padded_states + sizes.rank + 2) * kLanes;
  }
};

// Memory of a thread for its current group.
struct BackwardScratch {
  Chunk chunk;
  float *u, *gy, *gu;              // (L + 1, G W)
  float *slope, *delta, *du;       // (T, W); slope: the derivative of softplus
  float* gy_chunk;                 // (T, W)
  float *gdu, *glog;               // (T, W)
  float *decay, *state;            // (T, kBackwardStates, W), (T + 1, kBackwardStates, W)
  int64_t states;                  // of a row of gB and gC: N, made even
  float *gB, *gC;                  // (T, states, W): not yet summed over lanes
  float *gB_sums, *gC_sums;        // (T, states)
  float *gstep, *gstep_sums;       // (T, R, W), (T, R): of the low-rank delta, likewise

  BackwardScratch(const ZooScan& scan, const Sizes& sizes, const Groups& groups, Arena* arena)
      : chunk(scan, sizes, arena),
        u(arena->floats((sizes.tokens + 1) * groups.most_tiles * kLanes)),
        gy(arena->floats((sizes.tokens + 1) * groups.most_tiles * kLanes)),
        gu(arena->floats((sizes.tokens + 1) * groups.most_tiles * kLanes)),
        slope(arena->floats(kChunk * kLanes)),
        delta(arena->floats(kChunk * kLanes)),
        du(arena->floats(kChunk * kLanes)),
        gy_chunk(arena->floats(kChunk * kLanes)),
        gdu(arena->floats(kChunk * kLanes)),
        glog(arena->floats(kChunk * kLanes)),
        decay(arena->floats(kChunk * kBackwardStates * kLanes)),
        state(arena->floats((kChunk + 1) * kBackwardStates * kLanes)),
        states((scan.states + 1) / 2 * 2),
        gB(arena->floats(kChunk * states * kLanes)),
        gC(arena->floats(kChunk * states * kLanes)),
        gB_sums(arena->floats(kChunk * states)),
        gC_sums(arena->floats(kChunk * states)),
        gstep(arena->floats(kChunk * sizes.rank * kLanes)),
        gstep_sums(arena->floats(kChunk * sizes.rank)) {}
};

// Data of a tile's next chunk, prefetched while this one is computed.
struct Ahead {
  Lines lines;
  int64_t stride;
  const float *u, *gy, *gu;

  Ahead(const BackwardScratch& m, const Group& group, int64_t i)
      : lines(m.chunk.share(i)),
        stride(group.stride),
        u(m.u + i * kLanes),
        gy(m.gy + i * kLanes),
        gu(m.gu + i * kLanes) {}
};

// Runs kStates states through a chunk, from `before` to `after`. kAny: see decays.
template <int kStates, bool kAny = false>
void advance(const BackwardScratch& m, const Ahead& ahead, int64_t row, int64_t n0,
             const float* decay_rate, const float* before, float* after) {
  constexpr int kMany = together(kStates);
  Lines lines = ahead.lines;
  Vector state[kStates];
#pragma GCC unroll 16
  for (int n = 0; n < kStates; ++n) state[n] = load(before + (n0 + n) * kLanes);
  const float* B = m.chunk.B + n0;
  for (int s = 0; s < m.chunk.count; ++s, B += row) {
    if (n0 == 0) {
      Lines::ask(&lines);
      __builtin_prefetch(ahead.u + m.chunk.coming[s] * ahead.stride);
    }
    const Vector step = load(m.delta + s * kLanes), input = load(m.du + s * kLanes);
#pragma GCC unroll 16
    for (int n = 0; n < kStates; n += kMany) {
      Vector decay[kMany];
      decays<kMany, kAny>(step, decay_rate + (n0 + n) * kLanes, decay);
#pragma GCC unroll 16
      for (int i = 0; i < kMany; ++i) {
        state[n + i] = fma(decay[i], state[n + i], input * broadcast(B[n + i]));
      }
    }
  }
#pragma GCC unroll 16
  for (int n = 0; n < kStates; ++n) store(after + (n0 + n) * kLanes, state[n]);
}

// Recomputes kStates states of a chunk from `before`, then propagates their gradient back. kFirst:
// gB and gC are written, not added to.
template <int kStates, bool kFirst, bool kAny = false>
void retreat(const BackwardScratch& m, const Ahead& ahead, int64_t row, int64_t n0,
             const float* decay_rate, const float* before, float* carry, float* gA) {
  constexpr int kMany = together(kStates);
  constexpr int kBlock = kStates * kLanes;
  const int count = m.chunk.count;
  Lines lines = ahead.lines;
  Vector state[kStates];
#pragma GCC unroll 16
  for (int n = 0; n < kStates; ++n) {
    state[n] = load(before + (n0 + n) * kLanes);
    store(m.state + n * kLanes, state[n]);
  }
  for (int s = 0; s < count; ++s) {
    if (n0 == 0) {
      Lines::ask(&lines);
      __builtin_prefetch(ahead.u + m.chunk.coming[s] * ahead.stride);
      __builtin_prefetch(ahead.gy + m.chunk.coming[s] * ahead.stride);
      __builtin_prefetch(ahead.gu + m.chunk.coming[s] * ahead.stride);
    }
    const Vector step = load(m.delta + s * kLanes), input = load(m.du + s * kLanes);
    const float* B = m.chunk.B + s * row + n0;
#pragma GCC unroll 16
    for (int n = 0; n < kStates; n += kMany) {
      Vector decay[kMany];
      decays<kMany, kAny>(step, decay_rate + (n0 + n) * kLanes, decay);
#pragma GCC unroll 16
      for (int i = 0; i < kMany; ++i) {
        state[n + i] = fma(decay[i], state[n + i], input * broadcast(B[n + i]));
        store(m.decay + s * kBlock + (n + i) * kLanes, decay[i]);
        store(m.state + (s + 1) * kBlock + (n + i) * kLanes, state[n + i]);
      }
    }
  }

  Vector back[kStates], sum_A[kStates];
#pragma GCC unroll 16
  for (int n = 0; n < kStates; ++n) {
    back[n] = load(carry + (n0 + n) * kLanes);
    sum_A[n] = load(gA + (n0 + n) * kLanes);
  }
  for (int s = count - 1; s >= 0; --s) {
    const Vector gy = load(m.gy_chunk + s * kLanes), input = load(m.du + s * kLanes);
    const Vector step = load(m.delta + s * kLanes);
    Vector gdu = load(m.gdu + s * kLanes), glog = load(m.glog + s * kLanes);
    const float *B = m.chunk.B + s * row + n0, *C = m.chunk.C + s * row + n0;
    float *gB = m.gB + (s * m.states + n0) * kLanes, *gC = m.gC + (s * m.states + n0) * kLanes;
#pragma GCC unroll 16
    for (int n = 0; n < kStates; ++n) {
      const Vector gh = fma(gy, broadcast(C[n]), back[n]);
      const float* h = m.state + s * kBlock + n * kLanes;
      const Vector after = load(h + kBlock);
      store(gC + n * kLanes, kFirst ? gy * after : fma(gy, after, load(gC + n * kLanes)));
      store(gB + n * kLanes, kFirst ? gh * input : fma(gh, input, load(gB + n * kLanes)));
      gdu = fma(gh, broadcast(B[n]), gdu);
      back[n] = gh * load(m.decay + s * kBlock + n * kLanes);
      // The decay is 2^(delta rate): its gradient passes to delta and to the rate.
      const Vector gexponent = back[n] * load(h);
      glog = fma(gexponent, load(decay_rate + (n0 + n) * kLanes), glog);
      sum_A[n] = fma(gexponent, step, sum_A[n]);
    }
    store(m.gdu + s * kLanes, gdu);
    store(m.glog + s * kLanes, glog);
  }
#pragma GCC unroll 16
  for (int n = 0; n < kStates; ++n) {
    store(carry + (n0 + n) * kLanes, back[n]);
    store(gA + (n0 + n) * kLanes, sum_A[n]);
  }
}

}  // namespace
