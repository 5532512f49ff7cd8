// The backward pass. Shapes in comments: see gather.h; G tiles of a group.
//
// One task is a group of tiles of one image. For each direction it processes the chunks from the
// last to the first: it starts from the state that the forward pass kept, recomputes the decays and
// states of the chunk, and propagates the gradient of the state back. Memory of a thread: about
// 3 G W L floats. Gradients of B, C and the low-rank delta are sums over all channels:
// the lanes of a group are summed after each chunk, the groups at the end. The order of summation
// depends only on sizes, so the result does not depend on the number of threads.
#pragma once

namespace {

using Retreat = void (*)(const BackwardScratch&, const Ahead&, int64_t row, int64_t n0,
                         const Retreating* tiles);
template <int kStates>
constexpr Retreat kRetreatFirst = retreat<kStates, 1, true>;
template <int kStates>
constexpr Retreat kRetreatNext = retreat<kStates, 1, false>;
template <int kStates>
constexpr Retreat kRetreatFirstTiles = retreat<kStates, kBackwardTiles, true>;
template <int kStates>
constexpr Retreat kRetreatNextTiles = retreat<kStates, kBackwardTiles, false>;
// By whether all tiles go together, whether they are the first ones, and the size of the block.
constexpr Retreat kRetreat[2][2][9] = {{ZOO_BY_STATES(kRetreatNext, kBackwardStates),
                                        ZOO_BY_STATES(kRetreatFirst, kBackwardStates)},
                                       {ZOO_BY_STATES(kRetreatNextTiles, kBackwardStates),
                                        ZOO_BY_STATES(kRetreatFirstTiles, kBackwardStates)}};

// The same for decays out of reach of the fast exponential, one state at a time.
constexpr Retreat kRetreatAny[2][2] = {
    {retreat<1, 1, false, true>, retreat<1, 1, true, true>},
    {retreat<1, kBackwardTiles, false, true>, retreat<1, kBackwardTiles, true, true>}};

template <class Format>
class Backward {
 public:
  Backward(const ZooScan& scan, const ZooScanGradients& gradients)
      : scan_(scan), gradients_(gradients), sizes_(scan), groups_(scan, sizes_), kept_(scan) {}

  int run(const Team& team) {
    Arena common(nullptr), tile(nullptr);
    BackwardScratch(scan_, sizes_, groups_, &common);
    BackwardTile(scan_, sizes_, groups_, &tile);
    common_bytes_ = common.used();
    tile_bytes_ = tile.used();
    scratch_bytes_ = common_bytes_ + groups_.most_tiles * tile_bytes_;
    parameter_floats_ = ParameterGradients::floats(sizes_);
    scratch_ = static_cast<char*>(aligned_allocate(team.threads * scratch_bytes_, false));
    tokens_ = zeros(groups_.count * group_floats());
    parameters_ = zeros((scan_.batch > 0 ? scan_.batch : 1) * image_floats());
    const bool ready = scratch_ != nullptr && tokens_ != nullptr && parameters_ != nullptr;
    if (ready) {
      const int64_t tokens = scan_.batch * scan_.tokens;
      parallel_for(team, scan_.batch * groups_.count, walk_task, this);
      parallel_for(team, (tokens + kTokensPerTask - 1) / kTokensPerTask, token_task, this);
      parallel_for(team, sizes_.tiles, parameter_task, this);
    }
    aligned_free(scratch_);
    aligned_free(tokens_);
    aligned_free(parameters_);
    return ready ? ZOO_OK : ZOO_OUT_OF_MEMORY;
  }

 private:
  static constexpr int64_t kTokensPerTask = 64;

  static float* zeros(int64_t count) {
    return static_cast<float*>(aligned_allocate(count * sizeof(float), true));
  }

  // Floats of a group for one token and direction: gradients of low-rank delta, B and C.
  int64_t token_floats() const { return sizes_.rank + 2 * scan_.states; }
  int64_t group_floats() const {
    return scan_.batch * scan_.tokens * scan_.directions * token_floats();
  }
  // Floats of all parameters' gradients of one image.
  int64_t image_floats() const { return sizes_.tiles * scan_.directions * parameter_floats_; }
  int64_t state_floats() const { return sizes_.padded_states * kLanes; }

  // The walk of one group over one image.
  struct Walk {
    const Backward& call;
    char* memory;
    int64_t batch, index;
    Group group;
    int64_t direction = 0;
    BackwardScratch m;

    Walk(const Backward& backward, int worker, int64_t task)
        : call(backward),
          memory(backward.scratch_ + worker * backward.scratch_bytes_),
          batch(task / backward.groups_.count),
          index(task % backward.groups_.count),
          group(backward.sizes_, index, backward.groups_.most_tiles),
          m(scratch(backward, memory)) {}

    static BackwardScratch scratch(const Backward& backward, char* memory) {
      Arena arena(memory);
      return BackwardScratch(backward.scan_, backward.sizes_, backward.groups_, &arena);
    }
    BackwardTile memory_of(int64_t i) const {
      Arena arena(memory + call.common_bytes_ + i * call.tile_bytes_);
      return BackwardTile(call.scan_, call.sizes_, call.groups_, &arena);
    }
    Tile tile(int64_t i) const { return group.tile(call.scan_, i); }
    ParameterGradients parameter_gradients(int64_t i) const {
      const int64_t place = (group.first_tile + i) * call.scan_.directions + direction;
      return ParameterGradients(call.sizes_, call.parameters_ + batch * call.image_floats() +
                                                 place * call.parameter_floats_);
    }
  };

  static void walk_task(void* self, int worker, int64_t task) {
    const auto& call = *static_cast<const Backward*>(self);
    const ZooScan& scan = call.scan_;
    Walk walk(call, worker, task);
    load_group<Format>(scan, walk.group, scan.u, walk.batch * scan.u_stride[0], scan.u_stride[1],
                       walk.m.u);
    memset(walk.m.gu, 0, (scan.tokens + 1) * walk.group.stride * sizeof(float));
    for (int64_t k = 0; k < scan.directions; ++k) call.walk_direction(&walk, k);
    store_group<Format>(scan, walk.group, walk.m.gu, call.gradients_.u,
                        walk.batch * scan.tokens * scan.channels, scan.channels);
  }

  void walk_direction(Walk* walk, int64_t direction) const {
    Chunk& chunk = walk->m.chunk;
    walk->direction = direction;
    chunk.start(scan_, walk->group, walk->batch, direction);
    if (direction == 0 || !scan_.reduce) {
      load_group<Format>(scan_, walk->group, gradients_.y,
                         place(gradients_.y_stride, walk->batch, 0, direction),
                         gradients_.y_stride[1], walk->m.gy);
    }
    for (int64_t i = 0; i < walk->group.tiles; ++i) start_tile(*walk, i);
    for (int64_t c = groups_.chunks - 1; c >= 0; --c) {
      chunk.template gather<Format>(scan_, sizes_, c * kChunk, (c - 1) * kChunk);
      for (int64_t i = 0; i < walk->group.tiles;) {
        const int many = walk->group.tiles - i < kBackwardTiles ? 1 : kBackwardTiles;
        retreat_tiles(*walk, i, many, c);
        i += many;
      }
      add_up_lanes(*walk);
    }
  }

  void start_tile(const Walk& walk, int64_t i) const {
    const BackwardTile t = walk.memory_of(i);
    const Tile tile = walk.tile(i);
    t.parameters.load(scan_, sizes_, walk.direction, tile);
    memset(t.carry, 0, state_floats() * sizeof(float));
    memset(t.before, 0, state_floats() * sizeof(float));  // of states that only fill a block
    if (sizes_.rank > 0) return;
    for (int64_t token = 0; token < scan_.tokens; ++token) {
      write_delta(walk, tile, token, broadcast(0.0f));
    }
  }

  // If delta has no projection, its gradient belongs to a single tile and is written directly.
  void write_delta(const Walk& walk, Tile tile, int64_t token, Vector v) const {
    const int64_t row = walk.batch * scan_.tokens + token;
    const int64_t start = (row * scan_.directions + walk.direction) * scan_.channels;
    write_lanes<Format>(at<Format>(gradients_.delta, start + tile.first), v, tile.width);
  }

  // Loads the state before chunk c, and prefetches that before the chunk that comes next.
  void load_before(const Walk& walk, const BackwardTile& t, Tile tile, int64_t c) const {
    if (c == 0) {
      memset(t.before, 0, state_floats() * sizeof(float));
      return;
    }
    const float* in = kept_.before(scan_, walk.batch, walk.direction, c) + tile.first;
    const int64_t next = c > 1 ? -scan_.states * scan_.channels : 0;
    for (int64_t n = 0; n < scan_.states; ++n, in += scan_.channels) {
      store(t.before + n * kLanes, read_lanes<Float32>(in, tile.width));
      __builtin_prefetch(in + next);
      __builtin_prefetch(in + next + tile.width - 1);
    }
  }

  // Walks back with `many` tiles from the i-th: kBackwardTiles or 1.
  void retreat_tiles(const Walk& walk, int64_t i, int many, int64_t c) const {
    const BackwardScratch& m = walk.m;
    Retreating tiles[kBackwardTiles];
    bool any = false;
    for (int j = 0; j < many; ++j) {
      const BackwardTile t = walk.memory_of(i + j);
      const int64_t start = j * kChunk * kLanes;
      any |= m.chunk.template steps<Format>(scan_, sizes_, t.parameters, i + j, m.u,
                                            m.delta + start, m.du + start, m.slope + start);
      load_before(walk, t, walk.tile(i + j), c);
      tiles[j] = {t.parameters.decay_rate, t.before, t.carry, walk.parameter_gradients(i + j).A};
      for (int s = 0; s < m.chunk.count; ++s) {
        const int64_t row = m.chunk.rows[s] * walk.group.stride + (i + j) * kLanes;
        const Vector gy = load(m.gy + row), du = load(m.du + start + s * kLanes);
        float* gyu = m.gyu + s * m.row * kLanes;
        const Vector sum = i + j == 0 ? broadcast(0.0f) : load(gyu);
        store(m.gy_chunk + start + s * kLanes, gy);
        store(gyu, fma(gy, du, sum));
      }
    }
    const Ahead ahead(m, walk.group, i);
    for (int64_t n = 0; n < scan_.states;) {
      const int size = any ? 1 : block_states(scan_.states - n, kBackwardStates);
      const auto block = any ? kRetreatAny[many > 1][i == 0]
                             : kRetreat[many > 1][i == 0][size / 2];
      block(m, ahead, sizes_.padded_states, n, tiles);
      n += size;
    }
    for (int j = 0; j < many; ++j) finish_tile(walk, i + j, j);
  }

  // Computes gradients of u, D, bias and raw from those of delta u and of the decays' exponents,
  // which retreat left at the j-th place.
  void finish_tile(const Walk& walk, int64_t i, int j) const {
    const BackwardScratch& m = walk.m;
    const BackwardTile t = walk.memory_of(i);
    const ParameterGradients g = walk.parameter_gradients(i);
    const int64_t start = j * kChunk * kLanes;
    const Vector D = load(t.parameters.D), ln2 = broadcast(0.693147181f);
    Vector gbias = load(g.bias), gD = load(g.D);
    for (int s = 0; s < m.chunk.count; ++s) {
      const int64_t token = m.chunk.rows[s], row = token * walk.group.stride + i * kLanes;
      const Vector u = load(m.u + row), gy = load(m.gy_chunk + start + s * kLanes);
      const Vector gdu = load(m.gdu + start + s * kLanes);
      const Vector gdelta = fma(gdu, u, ln2 * load(m.glog + start + s * kLanes));
      const Vector graw = gdelta * load(m.slope + start + s * kLanes);
      store(t.graw + s * kLanes, graw);
      store(m.gu + row, load(m.gu + row) + fma(D, gy, gdu * load(m.delta + start + s * kLanes)));
      gbias = gbias + graw;
      gD = fma(gy, u, gD);
      if (sizes_.rank == 0 && token < scan_.tokens) write_delta(walk, walk.tile(i), token, graw);
    }
    store(g.bias, gbias);
    store(g.D, gD);
    int64_t r = 0;
    for (; r + 4 <= sizes_.rank; r += 4) add_up_weights<4>(m, t, g, r);
    for (; r < sizes_.rank; ++r) add_up_weights<1>(m, t, g, r);
  }

  // The gradients of the weights of kMany ranks.
  template <int kMany>
  void add_up_weights(const BackwardScratch& m, const BackwardTile& t, const ParameterGradients& g,
                      int64_t r) const {
    const float *graw = t.graw, *given = m.chunk.step + r;
    Vector sums[kMany];
#pragma GCC unroll 4
    for (int j = 0; j < kMany; ++j) sums[j] = load(g.weight + (r + j) * kLanes);
    for (int s = 0; s < m.chunk.count; ++s, given += sizes_.padded_rank) {
      const Vector v = load(graw + s * kLanes);
#pragma GCC unroll 4
      for (int j = 0; j < kMany; ++j) sums[j] = fma(v, broadcast(given[j]), sums[j]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < kMany; ++j) store(g.weight + (r + j) * kLanes, sums[j]);
  }

  // Sums over the channels of the group, for each token of the chunk.
  void add_up_lanes(const Walk& walk) const {
    const BackwardScratch& m = walk.m;
    int64_t r = 0;
    for (; r + 4 <= sizes_.rank; r += 4) project_back<4>(walk, r);
    for (; r < sizes_.rank; ++r) project_back<1>(walk, r);
    const int64_t filled = m.chunk.count * m.row;
    for (int64_t i = 0; i < filled; i += 16) sum_lanes_16(m.vectors + i * kLanes, m.sums + i);
    for (int s = 0; s < m.chunk.count; ++s) {
      const int64_t token = m.chunk.rows[s];
      if (token == scan_.tokens) continue;
      const int64_t row = (walk.index * scan_.batch + walk.batch) * scan_.tokens + token;
      float* out = tokens_ + (row * scan_.directions + walk.direction) * token_floats();
      const float *step = m.sums + s * m.row, *gB = step + sizes_.rank, *gC = gB + m.states;
      write_sums(step, sizes_.rank, out, nullptr, 0.0f);
      write_sums(gB, scan_.states, out + sizes_.rank, nullptr, 0.0f);
      write_sums(gC, scan_.states, out + sizes_.rank + scan_.states,
                 m.chunk.B + s * sizes_.padded_states, gC[m.states]);
    }
  }

  // out = sums + factor * added, where `added` is not null.
  static void write_sums(const float* sums, int64_t size, float* out, const float* added,
                         float factor) {
    for (int64_t i = 0; i < size; i += kLanes) {
      const int width = size - i < kLanes ? static_cast<int>(size - i) : kLanes;
      Vector sum = read_lanes<Float32>(sums + i, width);
      if (added != nullptr) {
        sum = fma(read_lanes<Float32>(added + i, width), broadcast(factor), sum);
      }
      write_lanes<Float32>(out + i, sum, width);
    }
  }

  // The gradient of the low-rank delta, from that of raw: sums over the tiles of kMany ranks.
  template <int kMany>
  void project_back(const Walk& walk, int64_t r) const {
    const BackwardScratch& m = walk.m;
    const BackwardTile t = walk.memory_of(0);  // the others follow at equal distances
    const int64_t next = tile_bytes_ / static_cast<int64_t>(sizeof(float));
    for (int s = 0; s < m.chunk.count; ++s) {
      Vector sums[kMany] = {};
      for (int64_t i = 0; i < walk.group.tiles; ++i) {
        const Vector graw = load(t.graw + i * next + s * kLanes);
        const float* weight = t.parameters.weight + i * next + r * kLanes;
#pragma GCC unroll 4
        for (int j = 0; j < kMany; ++j) sums[j] = fma(graw, load(weight + j * kLanes), sums[j]);
      }
#pragma GCC unroll 4
      for (int j = 0; j < kMany; ++j) {
        store(m.gstep + (s * m.row + r + j) * kLanes, sums[j]);
      }
    }
  }

  // Sums over groups and converts to the dtype of the tokens.
  static void token_task(void* self, int worker, int64_t task) {
    const auto& call = *static_cast<const Backward*>(self);
    const ZooScan& scan = call.scan_;
    const int64_t last = scan.batch * scan.tokens * scan.directions;
    const int64_t begin = task * kTokensPerTask * scan.directions;
    const int64_t end = begin + kTokensPerTask * scan.directions;
    for (int64_t row = begin; row < (end < last ? end : last); ++row) {
      const float* in = call.tokens_ + row * call.token_floats();
      call.add_up_groups(in, call.sizes_.rank, call.gradients_.delta, row);
      call.add_up_groups(in + call.sizes_.rank, scan.states, call.gradients_.B, row);
      call.add_up_groups(in + call.sizes_.rank + scan.states, scan.states, call.gradients_.C, row);
    }
  }

  void add_up_groups(const float* in, int64_t size, void* tensor, int64_t row) const {
    for (int64_t i = 0; i < size; i += kLanes) {
      const int width = size - i < kLanes ? static_cast<int>(size - i) : kLanes;
      Vector sum = read_lanes<Float32>(in + i, width);
      for (int64_t g = 1; g < groups_.count; ++g) {
        sum = sum + read_lanes<Float32>(in + g * group_floats() + i, width);
      }
      write_lanes<Format>(at<Format>(tensor, row * size + i), sum, width);
    }
  }

  // Sums over images and writes the gradients of the parameters in the layout of the parameters.
  static void parameter_task(void* self, int worker, int64_t index) {
    const auto& call = *static_cast<const Backward*>(self);
    const ZooScan& scan = call.scan_;
    for (int64_t k = 0; k < scan.directions; ++k) {
      float* sum = call.parameters_ + (index * scan.directions + k) * call.parameter_floats_;
      for (int64_t b = 1; b < scan.batch; ++b) {
        for (int64_t i = 0; i < call.parameter_floats_; i += kLanes) {
          store(sum + i, load(sum + i) + load(sum + b * call.image_floats() + i));
        }
      }
      call.write_parameters(ParameterGradients(call.sizes_, sum), k, Tile(scan, index));
    }
  }

  void write_parameters(const ParameterGradients& sum, int64_t direction, Tile tile) const {
    for (int lane = 0; lane < tile.width; ++lane) {
      const int64_t channel = direction * scan_.channels + tile.first + lane;
      gradients_.delta_bias[channel] = sum.bias[lane];
      gradients_.D[channel] = sum.D[lane];
      for (int64_t n = 0; n < scan_.states; ++n) {
        gradients_.A[channel * scan_.states + n] = sum.A[n * kLanes + lane];
      }
      for (int64_t r = 0; r < sizes_.rank; ++r) {
        gradients_.delta_weight[channel * scan_.rank + r] = sum.weight[r * kLanes + lane];
      }
    }
  }

  const ZooScan& scan_;
  const ZooScanGradients& gradients_;
  const Sizes sizes_;
  const Groups groups_;
  const Kept kept_;
  int64_t common_bytes_ = 0, tile_bytes_ = 0, scratch_bytes_ = 0, parameter_floats_ = 0;
  char* scratch_ = nullptr;
  float* tokens_ = nullptr;      // (groups, B, L, K, R + 2 N)
  float* parameters_ = nullptr;  // (B, tiles, K, P + R + 2, W)
};

}  // namespace
