// Converts the caller's tensors to the input of the recurrence: float32 vectors over channels.
//
// A tile is one vector of W = kLanes channels; in the last tile some of them may be padding. The
// data of a tile is copied to small dense arrays (X, W) before the recurrence starts, and back
// after it; steps are gathered T = kChunk at a time. So the recurrence itself does not handle
// dtypes, strides, padding or ends of tensors, and every access that may miss the cache is in a
// short loop of independent loads.
//
// Shapes in comments: L tokens, T steps of a chunk, W lanes of a tile, R rank, N states. P and Q
// are N and R rounded up and padded with zeros, so that rows can be copied as whole vectors.
#pragma once

#include <string.h>

namespace {

constexpr int kChunk = ZOO_KEPT_STEPS;
constexpr int kCacheLine = 64;

struct Sizes {
  int64_t tokens, tiles, padded_states;
  int64_t rank, padded_rank;  // of the projection; 0 if delta has no projection

  explicit Sizes(const ZooScan& scan)
      : tokens(scan.tokens),
        tiles((scan.channels + kLanes - 1) / kLanes),
        padded_states((scan.states + 15) / 16 * 16),
        rank(scan.delta_weight != nullptr ? scan.rank : 0),
        padded_rank((rank + 15) / 16 * 16) {}
};

struct Tile {
  int64_t first;  // channel
  int width;      // number of channels without padding

  Tile(const ZooScan& scan, int64_t index) : first(index * kLanes) {
    const int64_t left = scan.channels - first;
    width = left < kLanes ? static_cast<int>(left) : kLanes;
  }
};

// Divides one block of memory into parts; with a null base, it only measures the size.
class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}

  float* floats(int64_t count) { return reinterpret_cast<float*>(take(count * 4)); }
  int64_t used() const { return used_; }

 private:
  char* take(int64_t bytes) {
    char* part = base_ == nullptr ? nullptr : base_ + used_;
    used_ += (bytes + 63) / 64 * 64;
    return part;
  }

  char* base_;
  int64_t used_ = 0;
};

template <class Format>
INLINE const typename Format::Type* at(const void* tensor, int64_t index) {
  return static_cast<const typename Format::Type*>(tensor) + index;
}
template <class Format>
INLINE typename Format::Type* at(void* tensor, int64_t index) {
  return static_cast<typename Format::Type*>(tensor) + index;
}

template <class Format>
INLINE Vector read_lanes(const typename Format::Type* p, int width) {
  return width == kLanes ? Format::read(p) : Format::read(p, width);
}
template <class Format>
INLINE void write_lanes(typename Format::Type* p, Vector v, int width) {
  if (width == kLanes) {
    Format::write(p, v);
  } else {
    Format::write(p, v, width);
  }
}

// Copies `count` elements and pads with zeros to `padded`, a multiple of kLanes.
template <class Format>
INLINE void copy_row(const typename Format::Type* from, int64_t count, float* to, int64_t padded) {
  for (int64_t i = 0; i < padded; i += kLanes) {
    const int64_t left = count - i;
    const Vector v = left >= kLanes ? Format::read(from + i)
                     : left > 0     ? Format::read(from + i, static_cast<int>(left))
                                    : broadcast(0.0f);
    store(to + i, v);
  }
}

// The states before the chunks of a scan but the first: a row of channels for each state.
struct Kept {
  int64_t chunks;

  explicit Kept(const ZooScan& scan) : chunks(scan.steps > 0 ? (scan.steps - 1) / kChunk : 0) {}

  int64_t floats(const ZooScan& scan) const {
    return scan.batch * scan.directions * chunks * scan.states * scan.channels;
  }
  float* before(const ZooScan& scan, int64_t batch, int64_t direction, int64_t chunk) const {
    const int64_t place = (batch * scan.directions + direction) * chunks + chunk - 1;
    return scan.kept + place * scan.states * scan.channels;
  }
};

// Tiles that one task processes together: they share the data gathered for a chunk. Dense arrays of
// a group are (L + 1, G W), so that the cache lines of one token are adjacent.
struct Group {
  int64_t first_tile, tiles, stride;  // stride: floats from one token to the next in dense arrays

  Group(const Sizes& sizes, int64_t index, int64_t most)
      : first_tile(index * most),
        tiles(sizes.tiles - first_tile < most ? sizes.tiles - first_tile : most),
        stride(most * kLanes) {}

  Tile tile(const ZooScan& scan, int64_t i) const { return Tile(scan, first_tile + i); }
};

// dense (L + 1, G W) = the channels of a group; row L is zero and is read for entries of -1.
template <class Format>
void load_group(const ZooScan& scan, const Group& group, const void* tensor, int64_t start,
                int64_t stride, float* dense) {
  for (int64_t t = 0; t < scan.tokens; ++t) {
    for (int64_t i = 0; i < group.tiles; ++i) {
      const Tile tile = group.tile(scan, i);
      const auto* in = at<Format>(tensor, start + t * stride + tile.first);
      store(dense + t * group.stride + i * kLanes, read_lanes<Format>(in, tile.width));
    }
  }
  memset(dense + scan.tokens * group.stride, 0, group.stride * sizeof(float));
}
template <class Format>
void store_group(const ZooScan& scan, const Group& group, const float* dense, void* tensor,
                 int64_t start, int64_t stride) {
  for (int64_t t = 0; t < scan.tokens; ++t) {
    for (int64_t i = 0; i < group.tiles; ++i) {
      const Tile tile = group.tile(scan, i);
      auto* out = at<Format>(tensor, start + t * stride + tile.first);
      write_lanes<Format>(out, load(dense + t * group.stride + i * kLanes), tile.width);
    }
  }
}

// Parameters of one direction and tile, transposed to vectors over channels.
struct Parameters {
  float *decay_rate;  // (P, W): A log2(e), so that 2^(delta decay_rate) is the decay
  float *weight;      // (R, W)
  float *bias, *D;    // (W)
  float *reach;       // (W): a step times this is above 1 if a decay's exponent is out of reach

  Parameters(const ZooScan& scan, const Sizes& sizes, Arena* arena)
      : decay_rate(arena->floats(sizes.padded_states * kLanes)),
        weight(arena->floats(sizes.rank * kLanes)),
        bias(arena->floats(kLanes)),
        D(arena->floats(kLanes)),
        reach(arena->floats(kLanes)) {}

  void load(const ZooScan& scan, const Sizes& sizes, int64_t direction, Tile tile) const {
    const int64_t row = direction * scan.channels + tile.first;
    transpose(scan.A + row * scan.states, scan.states, tile.width, kLog2E, decay_rate);
    memset(decay_rate + scan.states * kLanes, 0,
           (sizes.padded_states - scan.states) * kLanes * sizeof(float));
    transpose(scan.delta_weight + row * sizes.rank, sizes.rank, tile.width, 1.0f, weight);
    store(bias, read_lanes<Float32>(scan.delta_bias + row, tile.width));
    store(D, read_lanes<Float32>(scan.D + row, tile.width));
    Vector most = broadcast(0.0f);
    for (int64_t n = 0; n < scan.states; ++n) {
      const Vector rate = ::load(decay_rate + n * kLanes);
      most = at_least(rate * broadcast(-1.0f / kMostDecay), most);
      most = at_least(rate * broadcast(1.0f / kMostGrowth), most);
    }
    store(reach, most);
  }

 private:
  static void transpose(const float* in, int64_t columns, int width, float factor, float* out) {
    for (int64_t c = 0; c < columns; ++c) {
      for (int lane = 0; lane < kLanes; ++lane) {
        out[c * kLanes + lane] = lane < width ? in[lane * columns + c] * factor : 0.0f;
      }
    }
  }
};

INLINE int64_t place(const int64_t* stride, int64_t batch, int64_t token, int64_t direction) {
  return batch * stride[0] + token * stride[1] + direction * stride[2];
}

// Cache lines to prefetch, a few at each step: all at once, they would wait for each other.
struct Lines {
  const char* const* next;
  const char* const* end;
  int64_t per_step;

  INLINE void ask(Lines* lines) {
    for (int64_t i = 0; i < lines->per_step && lines->next < lines->end; ++i) {
      __builtin_prefetch(*lines->next++);
    }
  }
};

// Consecutive steps of one direction of one image, with the gathered data that tiles share.
class Chunk {
 public:
  int count = 0;
  // Tokens of the steps of this chunk and of the next one to process; L if the order is -1.
  int64_t rows[kChunk], coming[kChunk];
  float* step;    // (T, Q) low-rank delta
  float *B, *C;   // (T, P)

  Chunk(const ZooScan& scan, const Sizes& sizes, Arena* arena)
      : step(arena->floats(kChunk * sizes.padded_rank)),
        B(arena->floats(kChunk * sizes.padded_states)),
        C(arena->floats(kChunk * sizes.padded_states)) {}

  void start(const ZooScan& scan, const Group& group, int64_t batch, int64_t direction) {
    group_ = &group;
    path_ = scan.order + batch * scan.order_stride + direction * scan.steps;
    B_ = place(scan.B_stride, batch, 0, direction);
    C_ = place(scan.C_stride, batch, 0, direction);
    delta_ = place(scan.delta_stride, batch, 0, direction);
  }

  // Gathers the steps from `begin`, and lists what to prefetch for the next chunk to process.
  template <class Format>
  void gather(const ZooScan& scan, const Sizes& sizes, int64_t begin, int64_t next_begin) {
    const int64_t left = scan.steps - begin;
    count = left < kChunk ? static_cast<int>(left) : kChunk;
    note_tokens<Format>(scan, sizes, next_begin);
    for (int s = 0; s < count; ++s) {
      const int64_t token = path_[begin + s];
      rows[s] = token < 0 ? scan.tokens : token;
    }
    gather_rows<Format>(scan, scan.B, B_, scan.B_stride[1], scan.states, sizes.padded_states, B);
    gather_rows<Format>(scan, scan.C, C_, scan.C_stride[1], scan.states, sizes.padded_states, C);
    if (sizes.rank > 0) {
      gather_rows<Format>(scan, scan.delta, delta_, scan.delta_stride[1], sizes.rank,
                          sizes.padded_rank, step);
    }
  }

  // The i-th tile's share of the cache lines of the next chunk.
  Lines share(int64_t i) const {
    const int64_t tiles = group_->tiles, first = lines_ * i / tiles;
    const int64_t last = lines_ * (i + 1) / tiles;
    return {line_ + first, line_ + last, (last - first + count - 1) / count};
  }

  // Computes delta (T, W) and delta u for a tile, and the slope of softplus if `slope` is not null.
  // Returns whether a decay's exponent is out of reach of the fast exponential.
  template <class Format>
  bool steps(const ZooScan& scan, const Sizes& sizes, const Parameters& parameters, int64_t i,
             const float* u, float* delta, float* du, float* slope) const {
    constexpr int kTogether = 4;
    Vector longest = broadcast(0.0f);
    int s = 0;
    for (; s + kTogether <= count; s += kTogether) {
      steps_of<Format, kTogether>(*this, scan, sizes, parameters, i, s, u, delta, du, slope,
                                  &longest);
    }
    for (; s < count; ++s) {
      steps_of<Format, 1>(*this, scan, sizes, parameters, i, s, u, delta, du, slope, &longest);
    }
    float most[kLanes];
    store(most, longest * load(parameters.reach));
    bool beyond = false;
    for (int lane = 0; lane < kLanes; ++lane) beyond |= most[lane] > 1.0f;
    return beyond;
  }

 private:
  static constexpr int64_t kLinesPerStep = 16;

  // Lists the cache lines of B, C and delta for the chunk that starts at a step.
  template <class Format>
  void note_tokens(const ZooScan& scan, const Sizes& sizes, int64_t begin) {
    const bool whole = sizes.rank == 0;  // delta has a value for each channel: those of the group
    const int64_t first = whole ? group_->first_tile * kLanes : 0;
    const int64_t values = whole ? group_->tiles * kLanes : sizes.rank;
    int64_t noted = 0;
    for (int s = 0; s < kChunk; ++s) {
      const int64_t step = begin + s;
      const int64_t token = step >= 0 && step < scan.steps ? path_[step] : -1;
      coming[s] = token < 0 ? scan.tokens : token;
      if (token < 0) continue;
      noted = note<Format>(scan.B, B_ + token * scan.B_stride[1], scan.states, noted);
      noted = note<Format>(scan.C, C_ + token * scan.C_stride[1], scan.states, noted);
      noted = note<Format>(scan.delta, delta_ + token * scan.delta_stride[1] + first, values, noted);
    }
    lines_ = noted < kChunk * kLinesPerStep ? noted : kChunk * kLinesPerStep;
  }

  // Adds the lines of a row to the list, as long as there is place, and returns their number.
  template <class Format>
  int64_t note(const void* tensor, int64_t start, int64_t size, int64_t noted) {
    const auto* row = at<Format>(tensor, start);
    const auto end = reinterpret_cast<uintptr_t>(row + size);
    auto line = reinterpret_cast<uintptr_t>(row) / kCacheLine * kCacheLine;
    for (; line < end && noted < kChunk * kLinesPerStep; line += kCacheLine) {
      line_[noted++] = reinterpret_cast<const char*>(line);
    }
    return noted;
  }

  // Copies a row of each step of the chunk. A token of -1 is zero: nothing is read.
  template <class Format>
  void gather_rows(const ZooScan& scan, const void* tensor, int64_t start, int64_t stride,
                   int64_t size, int64_t padded, float* out) const {
    const auto* in = at<Format>(tensor, start);
    for (int s = 0; s < count; ++s, out += padded) {
      const bool real = rows[s] != scan.tokens;
      copy_row<Format>(real ? in + rows[s] * stride : in, real ? size : 0, out, padded);
    }
  }

  // Computes several steps together, to hide the latency of the chain from projection to softplus.
  template <class Format, int kSteps>
  INLINE void steps_of(const Chunk& chunk, const ZooScan& scan, const Sizes& sizes,
                       const Parameters& parameters, int64_t i, int s, const float* u,
                       float* delta, float* du, float* slope, Vector* longest) {
    Vector raw[kSteps];
#pragma GCC unroll 4
    for (int j = 0; j < kSteps; ++j) raw[j] = load(parameters.bias);
    if (sizes.rank > 0) {
      const float* in = chunk.step + s * sizes.padded_rank;
      for (int64_t r = 0; r < sizes.rank; ++r) {
        const Vector weight = load(parameters.weight + r * kLanes);
#pragma GCC unroll 4
        for (int j = 0; j < kSteps; ++j) {
          raw[j] = fma(weight, broadcast(in[j * sizes.padded_rank + r]), raw[j]);
        }
      }
    } else {
      const Tile tile = chunk.group_->tile(scan, i);
      const auto* given = at<Format>(scan.delta, chunk.delta_ + tile.first);
#pragma GCC unroll 4
      for (int j = 0; j < kSteps; ++j) {
        const int64_t token = chunk.rows[s + j];
        if (token == scan.tokens) continue;
        raw[j] = raw[j] + read_lanes<Format>(given + token * scan.delta_stride[1], tile.width);
      }
    }
    Vector smooth[kSteps];
#pragma GCC unroll 4
    for (int j = 0; j < kSteps; ++j) smooth[j] = softplus(raw[j]);
#pragma GCC unroll 4
    for (int j = 0; j < kSteps; ++j) {
      const int64_t row = chunk.rows[s + j] * chunk.group_->stride + i * kLanes;
      store(delta + (s + j) * kLanes, smooth[j]);
      *longest = at_least(smooth[j], *longest);
      store(du + (s + j) * kLanes, smooth[j] * load(u + row));
      if (slope != nullptr) store(slope + (s + j) * kLanes, sigmoid(raw[j]));
    }
  }

  const Group* group_ = nullptr;
  const int32_t* path_ = nullptr;
  int64_t B_ = 0, C_ = 0, delta_ = 0;  // where the image and the direction start in the tensors
  int64_t lines_ = 0;
  const char* line_[kChunk * kLinesPerStep];
};

}  // namespace
