// The forward pass. Shapes in comments: see gather.h; G tiles of a group.
//
// One task is a group of tiles of one image. It copies u once, walks its directions one after
// another and adds up their outputs in a dense array, which is written out at the end. So permuted
// copies, delta and the outputs of single directions are never stored for the whole image. If this
// gives fewer tasks than threads, each direction becomes its own task. Outputs are added in the
// same order in both cases, so the result does not depend on the number of threads.
#pragma once

namespace {

// More tiles share more of the gathering, but their arrays (8 L G W bytes) no longer fit the cache.
constexpr int64_t kMostTiles = 8;

// Memory of a thread for each tile of its group.
struct ForwardTile {
  Parameters parameters;
  float* h;  // (P, W)

  ForwardTile(const ZooScan& scan, const Sizes& sizes, Arena* arena)
      : parameters(scan, sizes, arena), h(arena->floats(sizes.padded_states * kLanes)) {}
};

// Memory of a thread for its current group.
struct ForwardScratch {
  Chunk chunk;
  float *delta, *du;  // (T, W)
  float* sum;         // (T, W): sum over the earlier blocks, if there are several blocks of states
  float *u, *y;       // (L + 1, G W)

  ForwardScratch(const ZooScan& scan, const Sizes& sizes, int64_t tiles, Arena* arena)
      : chunk(scan, sizes, arena),
        delta(arena->floats(kChunk * kLanes)),
        du(arena->floats(kChunk * kLanes)),
        sum(arena->floats(kChunk * kLanes)),
        u(arena->floats((sizes.tokens + 1) * tiles * kLanes)),
        y(arena->floats((sizes.tokens + 1) * tiles * kLanes)) {}
};

// Runs the recurrence for kStates states of a tile, held in registers. After the last block of
// states, C h + D u is added to y. kCoarse, kAny: see decays.
template <bool kCoarse, int kStates, bool kAny = false>
void recur(const ForwardScratch& m, const ForwardTile& t, int64_t padded_states, int64_t stride,
           int64_t i, int64_t n0, bool last) {
  constexpr int kMany = together(kStates);
  const int64_t* rows = m.chunk.rows;
  const int64_t* coming = m.chunk.coming;
  const float *B = m.chunk.B + n0, *C = m.chunk.C + n0;
  const float* decay_rate = t.parameters.decay_rate + n0 * kLanes;
  const float* u = m.u + i * kLanes;
  float *y = m.y + i * kLanes, *h = t.h + n0 * kLanes;
  const int count = m.chunk.count;
  const bool first = n0 == 0;
  const Vector D = load(t.parameters.D);
  Lines lines = m.chunk.share(i);
  Vector state[kStates];
#pragma GCC unroll 16
  for (int n = 0; n < kStates; ++n) state[n] = load(h + n * kLanes);
  for (int s = 0; s < count; ++s, B += padded_states, C += padded_states) {
    const Vector step = load(m.delta + s * kLanes), input = load(m.du + s * kLanes);
    const int64_t row = rows[s] * stride;
    Vector sum;
    if (first) {
      Lines::ask(&lines);
      __builtin_prefetch(u + coming[s] * stride);
      __builtin_prefetch(y + coming[s] * stride);
      sum = D * load(u + row);
    } else {
      sum = load(m.sum + s * kLanes);
    }
#pragma GCC unroll 16
    for (int n = 0; n < kStates; n += kMany) {
      Vector decay[kMany];
      decays<kMany, kAny, kCoarse>(step, decay_rate + n * kLanes, decay);
#pragma GCC unroll 16
      for (int i = 0; i < kMany; ++i) {
        state[n + i] = fma(decay[i], state[n + i], input * broadcast(B[n + i]));
        sum = fma(state[n + i], broadcast(C[n + i]), sum);
      }
    }
    if (last) {
      store(y + row, load(y + row) + sum);
    } else {
      store(m.sum + s * kLanes, sum);
    }
  }
#pragma GCC unroll 16
  for (int n = 0; n < kStates; ++n) store(h + n * kLanes, state[n]);
}

// Number of states of the next block, given the number left: blocks of about the same size, at most
// `most`, which is even. It is 1 or even, because exponentials are computed in pairs; a state too
// many is padding.
INLINE int block_states(int64_t left, int most) {
  const int64_t blocks = (left + most - 1) / most;
  const int size = static_cast<int>((left + blocks - 1) / blocks);
  return size == 1 ? 1 : (size + 1) / 2 * 2;
}
constexpr int at_most_states(int size, int most) { return size < most ? size : most; }

// The instances of a function template for all sizes of blocks; that of a size is at [size / 2].
#define ZOO_BY_STATES(f, most)                                                                   \
  {f<1>, f<2>, f<at_most_states(4, most)>, f<at_most_states(6, most)>, f<at_most_states(8, most)>, \
   f<at_most_states(10, most)>, f<at_most_states(12, most)>, f<at_most_states(14, most)>,         \
   f<at_most_states(16, most)>}

using Recur = void (*)(const ForwardScratch&, const ForwardTile&, int64_t padded_states,
                       int64_t stride, int64_t i, int64_t n0, bool last);
template <int kStates>
constexpr Recur kExact = recur<false, kStates>;
template <int kStates>
constexpr Recur kCoarse = recur<true, kStates>;
constexpr Recur kRecur[] = ZOO_BY_STATES(kExact, kForwardStates);
constexpr Recur kCoarseRecur[] = ZOO_BY_STATES(kCoarse, kForwardStates);

// Whether a format has half precision.
template <class Format>
constexpr bool kHalf = sizeof(typename Format::Type) < sizeof(float);

template <class Format>
class Forward {
 public:
  // y may be null, for what the scan keeps alone.
  Forward(const ZooScan& scan, void* y) : scan_(scan), sizes_(scan), kept_(scan), y_(y) {}

  int run(const Team& team) {
    plan(team.threads);
    Arena common(nullptr), tile(nullptr);
    ForwardScratch(scan_, sizes_, most_tiles_, &common);
    ForwardTile(scan_, sizes_, &tile);
    common_bytes_ = common.used();
    tile_bytes_ = tile.used();
    scratch_bytes_ = common_bytes_ + most_tiles_ * tile_bytes_;
    scratch_ = static_cast<char*>(aligned_allocate(team.threads * scratch_bytes_, false));
    if (apart()) {
      partial_ = static_cast<float*>(aligned_allocate(
          scan_.batch * groups_ * scan_.directions * dense_floats() * sizeof(float), false));
    }
    const bool ready = scratch_ != nullptr && (partial_ != nullptr || !apart());
    if (ready) {
      const int64_t places = scan_.batch * groups_;
      parallel_for(team, places * (scan_.directions / directions_), scan_task, this);
      if (apart()) parallel_for(team, places, sum_task, this);
    }
    aligned_free(scratch_);
    aligned_free(partial_);
    return ready ? ZOO_OK : ZOO_OUT_OF_MEMORY;
  }

 private:
  // Chooses the largest groups that keep all threads busy, all of about the same size.
  void plan(int threads) {
    const int64_t tiles = sizes_.tiles > 0 ? sizes_.tiles : 1;
    const int64_t wanted = scan_.batch > 0 ? (threads + scan_.batch - 1) / scan_.batch : 1;
    const int64_t rounds = (tiles + wanted * kMostTiles - 1) / (wanted * kMostTiles);
    most_tiles_ = (tiles + wanted * rounds - 1) / (wanted * rounds);
    groups_ = (sizes_.tiles + most_tiles_ - 1) / most_tiles_;
    const bool enough = scan_.batch * groups_ >= threads;
    directions_ = scan_.reduce && enough && scan_.directions > 0 ? scan_.directions : 1;
  }

  // Whether directions are separate tasks whose outputs must be summed afterwards.
  bool apart() const { return scan_.reduce && directions_ < scan_.directions; }

  int64_t dense_floats() const { return (scan_.tokens + 1) * most_tiles_ * kLanes; }

  ForwardTile tile_scratch(int worker, int64_t i) const {
    Arena arena(scratch_ + worker * scratch_bytes_ + common_bytes_ + i * tile_bytes_);
    return ForwardTile(scan_, sizes_, &arena);
  }

  static void scan_task(void* self, int worker, int64_t task) {
    const auto& call = *static_cast<const Forward*>(self);
    const ZooScan& scan = call.scan_;
    const int64_t parts = scan.directions / call.directions_;
    const int64_t batch = task / parts / call.groups_;
    const int64_t first = task % parts * call.directions_;
    const Group group(call.sizes_, task / parts % call.groups_, call.most_tiles_);
    Arena arena(call.scratch_ + worker * call.scratch_bytes_);
    ForwardScratch m(scan, call.sizes_, call.most_tiles_, &arena);
    if (call.apart()) m.y = call.partial_ + task * call.dense_floats();
    load_group<Format>(scan, group, scan.u, batch * scan.u_stride[0], scan.u_stride[1], m.u);
    memset(m.y, 0, call.dense_floats() * sizeof(float));
    for (int64_t k = first; k < first + call.directions_; ++k) {
      m.chunk.start(scan, group, batch, k);
      call.scan_direction(worker, group, batch, k, &m);
    }
    if (!call.apart()) call.write(group, m.y, batch, first);
  }

  void scan_direction(int worker, const Group& group, int64_t batch, int64_t direction,
                      ForwardScratch* m) const {
    for (int64_t i = 0; i < group.tiles; ++i) {
      const ForwardTile t = tile_scratch(worker, i);
      t.parameters.load(scan_, sizes_, direction, group.tile(scan_, i));
      memset(t.h, 0, sizes_.padded_states * kLanes * sizeof(float));
    }
    for (int64_t begin = 0; begin < scan_.steps; begin += kChunk) {
      m->chunk.template gather<Format>(scan_, sizes_, begin, begin + kChunk);
      for (int64_t i = 0; i < group.tiles; ++i) {
        const ForwardTile t = tile_scratch(worker, i);
        const bool any = m->chunk.template steps<Format>(scan_, sizes_, t.parameters, i, m->u,
                                                         m->delta, m->du, nullptr);
        for (int64_t n = 0; n < scan_.states;) {
          const int size = any ? 1 : block_states(scan_.states - n, kForwardStates);
          const auto block = any           ? recur<false, 1, true>
                             : kHalf<Format> ? kCoarseRecur[size / 2]
                                             : kRecur[size / 2];
          block(*m, t, sizes_.padded_states, group.stride, i, n, n + size >= scan_.states);
          n += size;
        }
        if (scan_.kept != nullptr && begin + kChunk < scan_.steps) {
          keep(t, group.tile(scan_, i), kept_.before(scan_, batch, direction, begin / kChunk + 1));
        }
      }
    }
  }

  void keep(const ForwardTile& t, Tile tile, float* states) const {
    for (int64_t n = 0; n < scan_.states; ++n, states += scan_.channels) {
      write_lanes<Float32>(states + tile.first, load(t.h + n * kLanes), tile.width);
    }
  }

  static void sum_task(void* self, int worker, int64_t place) {
    const auto& call = *static_cast<const Forward*>(self);
    const int64_t directions = call.scan_.directions, count = call.dense_floats();
    float* y = call.partial_ + place * directions * count;
    for (int64_t i = 0; i < count; i += kLanes) {
      Vector sum = load(y + i);
      for (int64_t k = 1; k < directions; ++k) sum = sum + load(y + k * count + i);
      store(y + i, sum);
    }
    call.write(Group(call.sizes_, place % call.groups_, call.most_tiles_), y,
               place / call.groups_, 0);
  }

  void write(const Group& group, const float* y, int64_t batch, int64_t direction) const {
    if (y_ == nullptr) return;
    const int64_t row = (scan_.reduce ? 1 : scan_.directions) * scan_.channels;
    store_group<Format>(scan_, group, y, y_,
                        batch * scan_.tokens * row + direction * scan_.channels, row);
  }

  const ZooScan& scan_;
  const Sizes sizes_;
  const Kept kept_;
  void* const y_;
  // Number of tiles of a group, groups of an image, directions of a task.
  int64_t most_tiles_ = 1, groups_ = 1, directions_ = 1;
  int64_t common_bytes_ = 0, tile_bytes_ = 0, scratch_bytes_ = 0;
  char* scratch_ = nullptr;
  float* partial_ = nullptr;
};

}  // namespace
