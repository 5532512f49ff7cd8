// A chunk of the backward pass: its memory, and its two walks, forward and backward. Shapes in
// comments: see gather.h; G tiles of a group.
#pragma once

namespace {

// Target for images times groups: each group costs L K (R + 2 N) floats for its sums.
constexpr int64_t kBackwardTasks = 4;

struct Groups {
  int64_t most_tiles, count, chunks;  // chunks of a direction

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
  float* before;  // (P, W): the state before the chunk
  float* carry;   // (P, W): gradient of the state, passed from chunk to chunk
  float* graw;    // (T, W)

  BackwardTile(const ZooScan& scan, const Sizes& sizes, const Groups& groups, Arena* arena)
      : parameters(scan, sizes, arena),
        before(arena->floats(sizes.padded_states * kLanes)),
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
  // Of kBackwardTiles tiles, each (T, W); slope: the derivative of softplus.
  float *slope, *delta, *du;
  float *gy_chunk, *gdu, *glog;
  float *decay, *rest;             // (T, kBackwardTiles, kBackwardStates, W): see retreat
  int64_t states;                  // of gB and gC: N, made even
  int64_t row;                     // of sums: R + 2 states + 1
  float *gstep, *gB, *gC, *gyu;    // the parts of a row of sums: see there
  // (T, row, W), not yet summed over lanes, and (T, row): of the low-rank delta, B, C, and the sum
  // of gy delta u, which belongs to C.
  float *vectors, *sums;

  BackwardScratch(const ZooScan& scan, const Sizes& sizes, const Groups& groups, Arena* arena)
      : chunk(scan, sizes, arena),
        u(arena->floats((sizes.tokens + 1) * groups.most_tiles * kLanes)),
        gy(arena->floats((sizes.tokens + 1) * groups.most_tiles * kLanes)),
        gu(arena->floats((sizes.tokens + 1) * groups.most_tiles * kLanes)),
        slope(arena->floats(kBackwardTiles * kChunk * kLanes)),
        delta(arena->floats(kBackwardTiles * kChunk * kLanes)),
        du(arena->floats(kBackwardTiles * kChunk * kLanes)),
        gy_chunk(arena->floats(kBackwardTiles * kChunk * kLanes)),
        gdu(arena->floats(kBackwardTiles * kChunk * kLanes)),
        glog(arena->floats(kBackwardTiles * kChunk * kLanes)),
        decay(arena->floats(kChunk * kBackwardTiles * kBackwardStates * kLanes)),
        rest(arena->floats(kChunk * kBackwardTiles * kBackwardStates * kLanes)),
        states((scan.states + 1) / 2 * 2),
        row(sizes.rank + 2 * states + 1),
        vectors(arena->floats((kChunk * row + 15) / 16 * 16 * kLanes)),
        sums(arena->floats((kChunk * row + 15) / 16 * 16)) {
    gstep = vectors;
    gB = gstep + sizes.rank * kLanes;
    gC = gB + states * kLanes;
    gyu = gC + states * kLanes;
  }
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

// What a walk back through a chunk reads and changes of one tile.
struct Retreating {
  const float *decay_rate, *before;  // (P, W)
  float *carry, *gA;                 // (P, W)
};

// Recomputes kStates states of kTiles tiles through a chunk from `before`, then propagates their
// gradient back. kFirst: gB and gC are written, not added to. Of the state after a step, only what
// decayed is kept: what came in, delta u B, is the same product for all states.
template <int kStates, int kTiles, bool kFirst, bool kAny = false>
void retreat(const BackwardScratch& m, const Ahead& ahead, int64_t row, int64_t n0,
             const Retreating* tiles) {
  constexpr int kMany = together(kStates);
  constexpr int kTile = kChunk * kLanes, kBlock = kTiles * kStates * kLanes;
  const int count = m.chunk.count;
  const int64_t first = n0 * kLanes, next = m.row * kLanes;
  // Local: stored vectors might change what `m` holds.
  const float *delta = m.delta, *du = m.du, *gy_chunk = m.gy_chunk;
  float *decays_of = m.decay, *rests_of = m.rest, *gdu_of = m.gdu, *glog_of = m.glog;
  const float *rates[kTiles];
  Lines lines = ahead.lines;
  Vector state[kTiles][kStates];
#pragma GCC unroll 4
  for (int i = 0; i < kTiles; ++i) {
#pragma GCC unroll 16
    for (int n = 0; n < kStates; ++n) state[i][n] = load(tiles[i].before + first + n * kLanes);
    rates[i] = tiles[i].decay_rate + first;
  }
  for (int s = 0; s < count; ++s) {
    if (n0 == 0) {
      Lines::ask(&lines);
      const int64_t token = m.chunk.coming[s] * ahead.stride;
#pragma GCC unroll 4
      for (int i = 0; i < kTiles; ++i) {
        __builtin_prefetch(ahead.u + token + i * kLanes);
        __builtin_prefetch(ahead.gy + token + i * kLanes);
        __builtin_prefetch(ahead.gu + token + i * kLanes);
      }
    }
    const float* B = m.chunk.B + s * row + n0;
    float *kept_decay = decays_of + s * kBlock, *kept_rest = rests_of + s * kBlock;
#pragma GCC unroll 4
    for (int i = 0; i < kTiles; ++i) {
      const Vector step = load(delta + i * kTile + s * kLanes);
      const Vector input = load(du + i * kTile + s * kLanes);
#pragma GCC unroll 16
      for (int n = 0; n < kStates; n += kMany) {
        Vector decay[kMany];
        decays<kMany, kAny>(step, rates[i] + n * kLanes, decay);
#pragma GCC unroll 16
        for (int j = 0; j < kMany; ++j) {
          const Vector rest = decay[j] * state[i][n + j];
          state[i][n + j] = fma(input, broadcast(B[n + j]), rest);
          store(kept_decay + (i * kStates + n + j) * kLanes, decay[j]);
          store(kept_rest + (i * kStates + n + j) * kLanes, rest);
        }
      }
    }
  }

  Vector back[kTiles][kStates], sum_A[kTiles][kStates];
#pragma GCC unroll 4
  for (int i = 0; i < kTiles; ++i) {
#pragma GCC unroll 16
    for (int n = 0; n < kStates; ++n) {
      back[i][n] = load(tiles[i].carry + first + n * kLanes);
      sum_A[i][n] = load(tiles[i].gA + first + n * kLanes);
    }
  }
  const Vector zero = broadcast(0.0f);
  const float *B = m.chunk.B + (count - 1) * row + n0, *C = m.chunk.C + (count - 1) * row + n0;
  float *gB = m.gB + (count - 1) * next + first, *gC = m.gC + (count - 1) * next + first;
  for (int s = count - 1; s >= 0; --s) {
    const float *kept_decay = decays_of + s * kBlock, *kept_rest = rests_of + s * kBlock;
    Vector gdu[kTiles], glog[kTiles], gy[kTiles], input[kTiles], step[kTiles];
#pragma GCC unroll 4
    for (int i = 0; i < kTiles; ++i) {
      gdu[i] = n0 == 0 ? zero : load(gdu_of + i * kTile + s * kLanes);
      glog[i] = n0 == 0 ? zero : load(glog_of + i * kTile + s * kLanes);
      gy[i] = load(gy_chunk + i * kTile + s * kLanes);
      input[i] = load(du + i * kTile + s * kLanes);
      step[i] = load(delta + i * kTile + s * kLanes);
    }
#pragma GCC unroll 16
    for (int n = 0; n < kStates; ++n) {
      const Vector b = broadcast(B[n]), c = broadcast(C[n]);
      Vector sum_B = kFirst ? zero : load(gB + n * kLanes);
      Vector sum_C = kFirst ? zero : load(gC + n * kLanes);
#pragma GCC unroll 4
      for (int i = 0; i < kTiles; ++i) {
        const Vector rest = load(kept_rest + (i * kStates + n) * kLanes);
        const Vector gh = fma(gy[i], c, back[i][n]);
        sum_C = kFirst && i == 0 ? gy[i] * rest : fma(gy[i], rest, sum_C);
        sum_B = kFirst && i == 0 ? gh * input[i] : fma(gh, input[i], sum_B);
        gdu[i] = fma(gh, b, gdu[i]);
        back[i][n] = gh * load(kept_decay + (i * kStates + n) * kLanes);
        // The decay is 2^(delta rate): its gradient passes to delta and to the rate.
        const Vector gexponent = gh * rest;
        glog[i] = fma(gexponent, load(rates[i] + n * kLanes), glog[i]);
        sum_A[i][n] = fma(gexponent, step[i], sum_A[i][n]);
      }
      store(gB + n * kLanes, sum_B);
      store(gC + n * kLanes, sum_C);
    }
#pragma GCC unroll 4
    for (int i = 0; i < kTiles; ++i) {
      store(gdu_of + i * kTile + s * kLanes, gdu[i]);
      store(glog_of + i * kTile + s * kLanes, glog[i]);
    }
    B -= row, C -= row, gB -= next, gC -= next;
  }
#pragma GCC unroll 4
  for (int i = 0; i < kTiles; ++i) {
#pragma GCC unroll 16
    for (int n = 0; n < kStates; ++n) {
      store(tiles[i].carry + first + n * kLanes, back[i][n]);
      store(tiles[i].gA + first + n * kLanes, sum_A[i][n]);
    }
  }
}

}  // namespace
