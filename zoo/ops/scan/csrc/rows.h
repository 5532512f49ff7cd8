// Stages over the rows of an image, one row at a time; see ZooRows. A task is a band of rows of one
// image. What a stage computes goes to a ring of as many rows as the next stage reads, so that it is
// still in the cache then, and what no one reads later never goes to memory. At the edge of a band, a
// few rows are computed twice.
#pragma once

namespace {

// out (kRows, kVectors W) = bias + in (kRows, inputs) weight (inputs, kVectors W)
template <int kRows, int kVectors>
INLINE void product_block(const float* in, int64_t in_stride, int64_t inputs, const float* weight,
                          const float* bias, float* out, int64_t out_stride) {
  Vector sum[kRows][kVectors];
  start_sums(sum, bias);
  for (int64_t k = 0; k < inputs; ++k, weight += kVectors * kLanes) {
    Vector w[kVectors];
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) w[v] = load(weight + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Vector x = broadcast(in[r * in_stride + k]);
#pragma GCC unroll 3
      for (int v = 0; v < kVectors; ++v) sum[r][v] = fma(x, w[v], sum[r][v]);
    }
  }
  store_sums(sum, out, out_stride);
}

template <int kVectors>
void product_panel(const float* in, int64_t in_stride, int64_t inputs, const float* weight,
                   const float* bias, float* out, int64_t out_stride, int64_t count) {
  int64_t i = 0;
  for (; i + kProductRows <= count; i += kProductRows) {
    product_block<kProductRows, kVectors>(in + i * in_stride, in_stride, inputs, weight, bias,
                                          out + i * out_stride, out_stride);
  }
  for (; i < count; ++i) {
    product_block<1, kVectors>(in + i * in_stride, in_stride, inputs, weight, bias,
                               out + i * out_stride, out_stride);
  }
}

class Rows {
 public:
  explicit Rows(const ZooRows& call) : call_(call), width_(call.width) {}

  int run(const Team& team) {
    plan(team.threads);
    packed_ = allocate(packed_floats_);
    scratch_ = allocate(team.threads * scratch_floats_);
    const bool ready = packed_ != nullptr && scratch_ != nullptr;
    if (ready) {
      for (int i = 0; i < call_.count; ++i) pack(call_.stages[i], packed_ + place_[i].packed);
      parallel_for(team, call_.batch * bands_, band_task, this);
    }
    aligned_free(packed_);
    aligned_free(scratch_);
    return ready ? ZOO_OK : ZOO_OUT_OF_MEMORY;
  }

 private:
  static constexpr int64_t kLeastRows = 16;  // of a band: its edges cost a few rows more

  // The ring of a stage's output: `held` rows, and one of zeros for what is outside the image, each
  // with `margin` zero pixels on both sides.
  struct Place {
    int64_t reach, margin, held, stride, row_floats, ring;
    int64_t ahead;   // rows that the later stages read beyond theirs
    int64_t packed;  // where the stage's weights are
  };

  // The work of a thread on a band.
  struct Walk {
    const Rows& call;
    float* memory;
    int64_t image, top, bottom;
    int64_t next[ZOO_MOST_STAGES];  // the row that each stage computes next

    const float* row(int i, int64_t y) const {
      const Place& p = call.place_[i];
      const bool inside = y >= 0 && y < call.call_.height;
      return at(p, inside ? y % p.held : p.held);
    }
    float* row_to_fill(int i, int64_t y) const {
      const Place& p = call.place_[i];
      return at(p, y % p.held);
    }
    float* at(const Place& p, int64_t index) const {
      return memory + p.ring + index * p.row_floats + p.margin * p.stride;
    }
  };

  static float* allocate(int64_t floats) {
    return static_cast<float*>(aligned_allocate(floats * sizeof(float), true));
  }
  static int64_t whole_vectors(int64_t channels) {
    return (channels + kLanes - 1) / kLanes * kLanes;
  }

  void plan(int threads) {
    const int count = call_.count;
    int64_t ahead = 0, margin = 0;
    for (int i = count - 1; i >= 0; --i) {
      const ZooStage& stage = call_.stages[i];
      const bool wide = stage.kind == ZOO_DEPTHWISE;
      Place& p = place_[i];
      p.reach = wide ? stage.kernel / 2 * stage.dilation : 0;
      p.margin = margin;
      p.held = 2 * margin + 1;
      p.ahead = ahead;
      // A norm writes incomplete vectors, everything else whole ones.
      p.stride = stage.kind == ZOO_NORM ? stage.outputs : whole_vectors(stage.outputs);
      p.row_floats = whole_vectors((width_ + 2 * margin) * p.stride) + kLanes;
      p.ring = scratch_floats_;
      p.packed = packed_floats_;
      scratch_floats_ += (p.held + 1) * p.row_floats;
      packed_floats_ += packed_floats(stage);
      ahead += p.reach;
      margin = p.reach;
    }
    if (half()) {
      for (int i = 0; i < count; ++i) {
        const ZooStage& stage = call_.stages[i];
        const int64_t pairs = stage.kind == ZOO_PRODUCT ? width_ * pairs_of(stage.inputs) : 0;
        if (pairs > row_pairs_) row_pairs_ = pairs;
      }
    }
    pairs_at_ = scratch_floats_;
    scratch_floats_ += whole_vectors(row_pairs_);
    x_at_ = scratch_floats_;
    gate_at_ = x_at_ + whole_vectors(width_ * narrow_x());
    int64_t gate = 0;
    for (int i = 0; i < count; ++i) {
      if (narrow_gate(call_.stages[i]) > gate) gate = narrow_gate(call_.stages[i]);
    }
    scratch_floats_ = gate_at_ + whole_vectors(width_ * gate);
    const int64_t wanted = (threads + call_.batch - 1) / call_.batch;
    band_rows_ = (call_.height + wanted - 1) / wanted;
    if (band_rows_ < kLeastRows) band_rows_ = kLeastRows;
    bands_ = (call_.height + band_rows_ - 1) / band_rows_;
  }

  // Channels of a tensor of bfloat16, which is widened row by row; 0 if it is float32 already.
  int64_t narrow_x() const {
    return call_.x_dtype == ZOO_BFLOAT16 ? call_.stages[0].inputs : 0;
  }
  static int64_t narrow_gate(const ZooStage& stage) {
    return stage.gate != nullptr && stage.gate_dtype == ZOO_BFLOAT16 ? stage.outputs : 0;
  }

  bool half() const { return kHalfProducts && call_.half != 0; }

  int64_t packed_floats(const ZooStage& stage) const {
    const int64_t outputs = whole_vectors(stage.outputs);
    if (stage.kind == ZOO_PRODUCT) {
      return outputs * ((half() ? pairs_of(stage.inputs) : stage.inputs) + 1);
    }
    return stage.kind == ZOO_DEPTHWISE ? outputs * (stage.kernel * stage.kernel + 1) : 0;
  }

  // A product's weights: the bias (outputs); for each panel of vectors, (inputs, kVectors W), or of
  // pairs, (pairs, kVectors W).
  // A convolution's: for each vector of channels, the taps (kernel kernel, W) and the bias (W).
  void pack(const ZooStage& stage, float* to) const {
    if (stage.kind == ZOO_PRODUCT) {
      const int64_t outputs = whole_vectors(stage.outputs);
      constexpr int64_t kPanel = kProductVectors * kLanes;
      if (half()) {
        for (int64_t c = 0; c < stage.outputs; ++c) {
          to[c] = stage.bias != nullptr ? stage.bias[c] : 0.0f;
        }
        auto* pairs = reinterpret_cast<Pair*>(to + outputs);
        for (int64_t c = 0; c < stage.outputs; c += kPanel) {
          pack_pairs(stage.weight + c * stage.inputs, least(stage.outputs - c, kPanel),
                     stage.inputs, least(outputs - c, kPanel),
                     pairs + c * pairs_of(stage.inputs));
        }
        return;
      }
      for (int64_t c = 0; c < stage.outputs; ++c) {
        const int64_t first = c / kPanel * kPanel;
        const int64_t width = outputs - first < kPanel ? outputs - first : kPanel;
        float* lane = to + outputs + first * stage.inputs + (c - first);
        const float* row = stage.weight + c * stage.inputs;
        for (int64_t k = 0; k < stage.inputs; ++k) lane[k * width] = row[k];
        to[c] = stage.bias != nullptr ? stage.bias[c] : 0.0f;
      }
    } else if (stage.kind == ZOO_DEPTHWISE) {
      const int64_t taps = stage.kernel * stage.kernel;
      for (int64_t c = 0; c < stage.outputs; ++c) {
        float* lane = to + c / kLanes * (taps + 1) * kLanes + c % kLanes;
        for (int64_t t = 0; t < taps; ++t) lane[t * kLanes] = stage.weight[c * taps + t];
        lane[taps * kLanes] = stage.bias != nullptr ? stage.bias[c] : 0.0f;
      }
    }
  }

  static void band_task(void* self, int worker, int64_t task) {
    const auto& call = *static_cast<const Rows*>(self);
    const int64_t top = task % call.bands_ * call.band_rows_;
    const int64_t bottom = least(top + call.band_rows_, call.call_.height);
    Walk walk = {call, call.scratch_ + worker * call.scratch_floats_, task / call.bands_, top,
                 bottom, {}};
    const int last = call.call_.count - 1;
    for (int i = 0; i <= last; ++i) {
      const int64_t first = top - call.place_[i].ahead;
      walk.next[i] = first > 0 ? first : 0;
    }
    call.advance(&walk, last, bottom - 1);
  }

  // Computes the rows of a stage up to row y, and those of earlier stages that they need.
  void advance(Walk* walk, int i, int64_t y) const {
    while (walk->next[i] <= y) {
      const int64_t row = walk->next[i]++;
      if (i > 0) advance(walk, i - 1, least(row + place_[i].reach, call_.height - 1));
      compute(*walk, i, row);
    }
  }

  void compute(const Walk& walk, int i, int64_t y) const {
    const ZooStage& stage = call_.stages[i];
    const Place& p = place_[i];
    const int64_t first_token = (walk.image * call_.height + y) * width_;
    const Tokens given =
        i > 0 ? Tokens{walk.row(i - 1, y), place_[i - 1].stride}
              : tokens_of(call_.x, call_.x_dtype, first_token, call_.x_stride, narrow_x(),
                          walk.memory + x_at_);
    const float* in = given.first;
    const int64_t in_stride = given.stride;
    float* out = walk.row_to_fill(i, y);
    if (stage.kind == ZOO_NORM) {
      normalise(walk, stage, in, in_stride, first_token, out);
    } else if (stage.kind == ZOO_PRODUCT) {
      multiply(walk, stage, packed_ + p.packed, in, in_stride, out, p.stride);
      activate(stage, out, width_ * p.stride);
    } else {
      convolve(walk, i, y, out);
    }
    if (stage.skip != nullptr) add_skip(stage, first_token, out, p.stride);
    if (stage.out != nullptr && y >= walk.top && y < walk.bottom) {
      write(stage, first_token, out, p.stride);
    }
  }

  // Tokens of a row.
  struct Tokens {
    const float* first;
    int64_t stride;
  };

  // The tokens of a row of a tensor; if it is narrow, widened into `to`.
  Tokens tokens_of(const void* tensor, int32_t dtype, int64_t first_token, int64_t stride,
                   int64_t narrow, float* to) const {
    if (dtype == ZOO_FLOAT32) return {at<Float32>(tensor, first_token * stride), stride};
    const auto* row = at<BFloat16>(tensor, first_token * stride);
    each(width_, 0, narrow, [=](int64_t t, int64_t c, int width) {
      write_lanes<Float32>(to + t * narrow + c, read_lanes<BFloat16>(row + t * stride + c, width),
                           width);
    });
    return {to, narrow};
  }

  void normalise(const Walk& walk, const ZooStage& stage, const float* in, int64_t in_stride,
                 int64_t first_token, float* out) const {
    Tokens gate = {nullptr, 0};
    if (stage.gate != nullptr) {
      gate = tokens_of(stage.gate, stage.gate_dtype, first_token, stage.gate_stride,
                       narrow_gate(stage), walk.memory + gate_at_);
    }
    ZooTokens row = {};
    row.images = 1;
    row.tokens = width_;
    row.channels = stage.outputs;
    row.eps = stage.eps;
    row.x = in;
    row.x_stride = in_stride;
    row.weight = stage.weight;
    row.bias = stage.bias;
    row.gate = gate.first;
    row.gate_stride = gate.stride;
    row.out = out;
    TokenPass(row).run({1, nullptr});
  }

  void multiply(const Walk& walk, const ZooStage& stage, const float* packed, const float* in,
                int64_t in_stride, float* out, int64_t out_stride) const {
    const float* weight = packed + out_stride;
    if (half()) {
      const int64_t pairs = pairs_of(stage.inputs);
      auto* rounded = reinterpret_cast<Pair*>(walk.memory + pairs_at_);
      round_to_pairs(in, in_stride, stage.inputs, width_, rounded);
      for (int64_t c = 0; c < out_stride; c += kProductVectors * kLanes) {
        const int64_t vectors = least((out_stride - c) / kLanes, kProductVectors);
        const auto panel = vectors == 1   ? half_panel<1>
                           : vectors == 2 ? half_panel<2>
                                          : half_panel<kProductVectors>;
        panel(rounded, pairs, reinterpret_cast<const Pair*>(weight) + c * pairs, packed + c,
              out + c, out_stride, width_);
      }
      return;
    }
    for (int64_t c = 0; c < out_stride; c += kProductVectors * kLanes) {
      const int64_t vectors = least((out_stride - c) / kLanes, kProductVectors);
      const auto panel = vectors == 1   ? product_panel<1>
                         : vectors == 2 ? product_panel<2>
                                        : product_panel<kProductVectors>;
      panel(in, in_stride, stage.inputs, weight + c * stage.inputs, packed + c, out + c,
            out_stride, width_);
    }
  }

  // Applies the activation of a product to a row, which consists of whole vectors.
  static void activate(const ZooStage& stage, float* row, int64_t count) {
    if (stage.activation == ZOO_SILU) {
      for (int64_t i = 0; i < count; i += kLanes) {
        store(row + i, Activation<ZOO_SILU>::value(load(row + i)));
      }
    } else if (stage.activation == ZOO_GELU) {
      for (int64_t i = 0; i < count; i += kLanes) {
        store(row + i, Activation<ZOO_GELU>::value(load(row + i)));
      }
    }
  }

  void convolve(const Walk& walk, int i, int64_t y, float* out) const {
    const bool usual = call_.stages[i].kernel == 3;
    switch (call_.stages[i].activation) {
      case ZOO_SILU:
        return usual ? convolve_row<ZOO_SILU, 3>(walk, i, y, out)
                     : convolve_row<ZOO_SILU, 0>(walk, i, y, out);
      case ZOO_GELU:
        return usual ? convolve_row<ZOO_GELU, 3>(walk, i, y, out)
                     : convolve_row<ZOO_GELU, 0>(walk, i, y, out);
      default:
        return usual ? convolve_row<ZOO_NO_ACTIVATION, 3>(walk, i, y, out)
                     : convolve_row<ZOO_NO_ACTIVATION, 0>(walk, i, y, out);
    }
  }

  // kKernel: side of the kernel, or 0 for any.
  template <int kActivation, int kKernel>
  void convolve_row(const Walk& walk, int i, int64_t y, float* out) const {
    const Place& p = place_[i];
    const int64_t in_stride = place_[i - 1].stride, kernel = call_.stages[i].kernel;
    const float* rows[ZOO_MOST_KERNEL];
    for (int64_t a = 0; a < kernel; ++a) {
      const int64_t from = y - p.reach + a * call_.stages[i].dilation;
      rows[a] = walk.row(i - 1, from) - p.reach * in_stride;
    }
    const Taps taps = {rows, packed_ + p.packed, kernel, call_.stages[i].dilation * in_stride,
                       in_stride};
    int64_t x = 0;
    for (; x + kPixels <= width_; x += kPixels) {
      pixels<kPixels, kActivation, kKernel>(taps, x, p.stride, out);
    }
    for (; x < width_; ++x) pixels<1, kActivation, kKernel>(taps, x, p.stride, out);
  }

  // Where the taps of a row of a convolution read, and their weights.
  struct Taps {
    const float* const* rows;
    const float* weight;
    int64_t kernel, across, in_stride;  // across: floats from one tap to the next
  };

  template <int kMany, int kActivation, int kKernel>
  INLINE void pixels(const Taps& taps, int64_t x, int64_t stride, float* out) {
    // Local: the compiler cannot know that the vectors it stores change nothing else.
    const int64_t across = taps.across, in_stride = taps.in_stride;
    const int64_t kernel = kKernel > 0 ? kKernel : taps.kernel;
    const float* const* rows = taps.rows;
    const float* weight = taps.weight;
    for (int64_t c = 0; c < stride; c += kLanes, weight += kLanes) {
      const Vector bias = load(weight + kernel * kernel * kLanes);
      Vector sum[kMany];
#pragma GCC unroll 4
      for (int m = 0; m < kMany; ++m) sum[m] = bias;
#pragma GCC unroll 3
      for (int64_t a = 0; a < kernel; ++a) {
        const float* in = rows[a] + x * in_stride + c;
#pragma GCC unroll 3
        for (int64_t b = 0; b < kernel; ++b, in += across, weight += kLanes) {
          const Vector w = load(weight);
#pragma GCC unroll 4
          for (int m = 0; m < kMany; ++m) sum[m] = fma(w, load(in + m * in_stride), sum[m]);
        }
      }
#pragma GCC unroll 4
      for (int m = 0; m < kMany; ++m) {
        store(out + (x + m) * stride + c, Activation<kActivation>::value(sum[m]));
      }
    }
  }

  // Calls `body(token of the row, first channel, number of channels)` for all vectors of a row.
  template <class Body>
  INLINE void each(int64_t tokens, int64_t first, int64_t channels, Body body) {
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t c = first; c < channels; c += kLanes) {
        body(t, c, static_cast<int>(least(channels - c, kLanes)));
      }
    }
  }

  void add_skip(const ZooStage& stage, int64_t first_token, float* out, int64_t stride) const {
    const float* skip = stage.skip + first_token * stage.skip_stride;
    const float* scale = stage.scale;
    const int64_t skip_stride = stage.skip_stride;
    each(width_, 0, stage.outputs, [=](int64_t t, int64_t c, int width) {
      Vector kept = read_lanes<Float32>(skip + t * skip_stride + c, width);
      if (scale != nullptr) kept = kept * read_lanes<Float32>(scale + c, width);
      float* v = out + t * stride + c;
      write_lanes<Float32>(v, kept + read_lanes<Float32>(v, width), width);
    });
  }

  void write(const ZooStage& stage, int64_t first_token, const float* row, int64_t stride) const {
    if (stage.out_dtype == ZOO_BFLOAT16) {
      write_as<BFloat16>(stage, first_token, row, stride);
    } else {
      write_as<Float32>(stage, first_token, row, stride);
    }
  }

  template <class Format>
  void write_as(const ZooStage& stage, int64_t first_token, const float* row,
                int64_t stride) const {
    const int64_t first = stage.first, columns = stage.outputs - first;
    auto* out = at<Format>(stage.out, first_token * columns);
    each(width_, first, stage.outputs, [=](int64_t t, int64_t c, int width) {
      write_lanes<Format>(out + t * columns + c - first,
                          read_lanes<Float32>(row + t * stride + c, width), width);
    });
  }

  static constexpr int64_t kPixels = 4;
  const ZooRows& call_;
  const int64_t width_;
  Place place_[ZOO_MOST_STAGES];
  int64_t band_rows_ = 0, bands_ = 0, scratch_floats_ = 0, packed_floats_ = 0;
  // Pairs of a row's tokens, and where these and widened tokens are in the memory of a thread.
  int64_t row_pairs_ = 0, pairs_at_ = 0, x_at_ = 0, gate_at_ = 0;
  float *packed_ = nullptr, *scratch_ = nullptr;
};

}  // namespace
