// A depthwise convolution and its activation in one pass. A task is a band of rows of one image, which
// are read and written as they lie in memory. For the gradients, the same pass computes the slope of
// the activation times the gradient of the output. DepthwiseWeights sums up what the weights get.
#pragma once

namespace {

// What a pass writes for the sum z of the taps: f(z) or, with a gradient g of it, g f'(z).
template <int kActivation>
struct Activation;
template <>
struct Activation<ZOO_NO_ACTIVATION> {
  INLINE Vector value(Vector z) { return z; }
  INLINE Vector slope(Vector z) { return broadcast(1.0f); }
};
template <>
struct Activation<ZOO_SILU> {
  INLINE Vector value(Vector z) { return silu(z); }
  INLINE Vector slope(Vector z) { return silu_slope(z); }
};
template <>
struct Activation<ZOO_GELU> {
  INLINE Vector value(Vector z) { return gelu(z); }
  INLINE Vector slope(Vector z) { return gelu_slope(z); }
};

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// The rows of an image that a task takes, and how a convolution is divided into them.
struct Band {
  int64_t image, top, bottom;
};
struct Bands {
  static constexpr int64_t kRows = 8;
  int64_t height, of_image, count;

  explicit Bands(const ZooDepthwise& call)
      : height(call.height),
        of_image((call.height + kRows - 1) / kRows),
        count(call.batch * of_image) {}

  Band operator[](int64_t index) const {
    const int64_t top = index % of_image * kRows;
    return {index / of_image, top, least(top + kRows, height)};
  }
};

// Where the taps of a convolution read, and which pixels have all of them inside the image.
// kKernel: side of the kernel, or 0 for any.
template <int kKernel>
struct Taps {
  static constexpr int kHeld = kKernel * kKernel, kSide = kKernel > 0 ? kKernel : 1;
  const ZooDepthwise& call;
  const float* image;
  int64_t reach;
  int64_t offset[kHeld + 1];  // of each tap from the kernel's corner

  Taps(const ZooDepthwise& call, int64_t index)
      : call(call),
        image(call.x + index * call.x_stride[0]),
        reach(call.kernel / 2 * call.dilation) {
#pragma GCC unroll 9
    for (int t = 0; t < kHeld; ++t) {
      offset[t] = (t / kSide * call.x_stride[1] + t % kSide * call.x_stride[2]) * call.dilation;
    }
  }

  const float* corner(int64_t y, int64_t x) const {
    return image + (y - reach) * call.x_stride[1] + (x - reach) * call.x_stride[2];
  }

  // The columns of row y whose taps are all inside; none for kernels of any side.
  void inside(int64_t y, int64_t* begin, int64_t* end) const {
    const bool some = kHeld > 0 && y >= reach && y + reach < call.height;
    *begin = some ? least(reach, call.width) : call.width;
    *end = some && call.width - reach > *begin ? call.width - reach : *begin;
  }

  // Calls `body(tap, vector)` for the taps inside the image of a kernel around row y, column x, with
  // `width` channels from the first one.
  template <class Body>
  INLINE void each_inside(const Taps& taps, int64_t y, int64_t x, int64_t first, int width,
                          Body body) {
    const ZooDepthwise& call = taps.call;
    int64_t tap = 0;
    for (int64_t i = 0; i < call.kernel; ++i) {
      const int64_t row = y - taps.reach + i * call.dilation;
      const float* in = taps.image + row * call.x_stride[1] + first;
      for (int64_t j = 0; j < call.kernel; ++j, ++tap) {
        const int64_t column = x - taps.reach + j * call.dilation;
        if (row < 0 || row >= call.height || column < 0 || column >= call.width) continue;
        body(tap, read_lanes<Float32>(in + column * call.x_stride[2], width));
      }
    }
  }
};

// Calls `body(tile, first channel, number of channels)` for each tile of channels.
template <class Body>
INLINE void each_tile(int64_t channels, Body body) {
  const int64_t whole = channels / kLanes;
  for (int64_t tile = 0; tile < whole; ++tile) body(tile, tile * kLanes, kLanes);
  const int rest = static_cast<int>(channels - whole * kLanes);
  if (rest > 0) body(whole, whole * kLanes, rest);
}

class Depthwise {
 public:
  // grad: of the output, (B, H, W, C), or null for the output itself.
  Depthwise(const ZooDepthwise& call, const float* grad, float* out)
      : call_(call),
        grad_(grad),
        out_(out),
        taps_(call.kernel * call.kernel),
        tiles_((call.channels + kLanes - 1) / kLanes),
        bands_(call),
        fill_(filler(call, grad != nullptr)) {}

  int run(const Team& team) {
    const int64_t floats = tiles_ * (taps_ + 1) * kLanes;
    weight_ = static_cast<float*>(aligned_allocate(floats * sizeof(float), true));
    if (weight_ == nullptr) return ZOO_OUT_OF_MEMORY;
    for (int64_t c = 0; c < call_.channels; ++c) {
      float* lane = weight_ + c / kLanes * (taps_ + 1) * kLanes + c % kLanes;
      for (int64_t t = 0; t < taps_; ++t) lane[t * kLanes] = call_.weight[c * taps_ + t];
      lane[taps_ * kLanes] = call_.bias != nullptr ? call_.bias[c] : 0.0f;
    }
    parallel_for(team, bands_.count, band_task, this);
    aligned_free(weight_);
    return ZOO_OK;
  }

 private:
  static void band_task(void* self, int worker, int64_t band) {
    const auto& call = *static_cast<const Depthwise*>(self);
    (call.*call.fill_)(call.bands_[band]);
  }

  using Filler = void (Depthwise::*)(const Band&) const;
  static Filler filler(const ZooDepthwise& call, bool slope) {
    switch (call.activation) {
      case ZOO_SILU:
        return filler<ZOO_SILU>(call.kernel, slope);
      case ZOO_GELU:
        return filler<ZOO_GELU>(call.kernel, slope);
      default:
        return filler<ZOO_NO_ACTIVATION>(call.kernel, slope);
    }
  }
  template <int kActivation>
  static Filler filler(int64_t kernel, bool slope) {
    if (kernel == 3) {
      return slope ? &Depthwise::fill<3, kActivation, true>
                   : &Depthwise::fill<3, kActivation, false>;
    }
    return slope ? &Depthwise::fill<0, kActivation, true> : &Depthwise::fill<0, kActivation, false>;
  }

  template <int kKernel, int kActivation, bool kSlope>
  void fill(const Band& band) const {
    const Taps<kKernel> taps(call_, band.image);
    const int64_t channels = call_.channels, column = call_.x_stride[2];
    for (int64_t y = band.top; y < band.bottom; ++y) {
      const int64_t row = (band.image * call_.height + y) * call_.width * channels;
      float* out = out_ + row;
      const float* grad = kSlope ? grad_ + row : nullptr;
      int64_t begin, end;
      taps.inside(y, &begin, &end);
      beside<kKernel, kActivation, kSlope>(taps, y, 0, begin, grad, out);
      int64_t x = begin;
      const float* corner = taps.corner(y, begin);
      for (; x + kPixels <= end; x += kPixels, corner += kPixels * column) {
        pixels<kPixels, kKernel, kActivation, kSlope>(*this, taps, corner, x * channels, grad,
                                                      out);
      }
      for (; x < end; ++x, corner += column) {
        pixels<1, kKernel, kActivation, kSlope>(*this, taps, corner, x * channels, grad, out);
      }
      beside<kKernel, kActivation, kSlope>(taps, y, end, call_.width, grad, out);
    }
  }

  // Pixels beside the border.
  template <int kKernel, int kActivation, bool kSlope>
  void beside(const Taps<kKernel>& taps, int64_t y, int64_t from, int64_t to, const float* grad,
              float* out) const {
    const int64_t channels = call_.channels;
    for (int64_t x = from; x < to; ++x) {
      each_tile(channels, [&](int64_t tile, int64_t first, int width) {
        const float* weight = weight_ + tile * (taps_ + 1) * kLanes;
        Vector sum = load(weight + taps_ * kLanes);
        Taps<kKernel>::each_inside(taps, y, x, first, width, [&](int64_t tap, Vector v) {
          sum = fma(load(weight + tap * kLanes), v, sum);
        });
        finish<kActivation, kSlope>(sum, x * channels + first, width, grad, out);
      });
    }
  }

  // kMany pixels in a row whose taps are all inside; they share the weights.
  template <int kMany, int kKernel, int kActivation, bool kSlope>
  INLINE void pixels(const Depthwise& call, const Taps<kKernel>& taps, const float* corner,
                     int64_t start, const float* grad, float* out) {
    constexpr int kHeld = kKernel * kKernel;
    // Everything that the loop reads is local: the compiler cannot know that the vectors it stores
    // change nothing else.
    const int64_t channels = call.call_.channels, column = call.call_.x_stride[2];
    const float* weights = call.weight_;
    int64_t offset[kHeld + 1];
#pragma GCC unroll 9
    for (int t = 0; t < kHeld; ++t) offset[t] = taps.offset[t];
    each_tile(channels, [=](int64_t tile, int64_t first, int width) {
      const float* weight = weights + tile * (kHeld + 1) * kLanes;
      Vector sum[kMany];
#pragma GCC unroll 4
      for (int i = 0; i < kMany; ++i) sum[i] = load(weight + kHeld * kLanes);
#pragma GCC unroll 9
      for (int t = 0; t < kHeld; ++t) {
        const Vector w = load(weight + t * kLanes);
        const float* in = corner + offset[t] + first;
#pragma GCC unroll 4
        for (int i = 0; i < kMany; ++i) {
          sum[i] = fma(w, read_lanes<Float32>(in + i * column, width), sum[i]);
        }
      }
#pragma GCC unroll 4
      for (int i = 0; i < kMany; ++i) {
        finish<kActivation, kSlope>(sum[i], start + i * channels + first, width, grad, out);
      }
    });
  }

  // Writes what belongs to the sum of the taps.
  template <int kActivation, bool kSlope>
  INLINE void finish(Vector sum, int64_t place, int width, const float* grad, float* out) {
    Vector v;
    if (kSlope) {
      v = read_lanes<Float32>(grad + place, width) * Activation<kActivation>::slope(sum);
    } else {
      v = Activation<kActivation>::value(sum);
    }
    write_lanes<Float32>(out + place, v, width);
  }

  static constexpr int kPixels = 4;
  const ZooDepthwise& call_;
  const float* const grad_;
  float* const out_;
  const int64_t taps_, tiles_;
  const Bands bands_;
  const Filler fill_;
  float* weight_ = nullptr;  // (tiles, taps + 1, W): the weights, and the bias as the last
};

// Gradients of weight and bias, given that of the sum of the taps. Each task sums up the bands of a
// part of the images; then the parts are summed. Their number depends on sizes alone, so the result
// does not depend on the number of threads.
class DepthwiseWeights {
 public:
  DepthwiseWeights(const ZooDepthwise& call, const float* grad, float* weight, float* bias)
      : call_(call),
        grad_(grad),
        weight_(weight),
        bias_(bias),
        taps_(call.kernel * call.kernel),
        tiles_((call.channels + kLanes - 1) / kLanes),
        bands_(call),
        parts_(least(bands_.count, kMostParts)) {}

  int run(const Team& team) {
    const int64_t floats = parts_ * part_floats();
    sums_ = static_cast<float*>(aligned_allocate(floats * sizeof(float), true));
    if (sums_ == nullptr) return ZOO_OUT_OF_MEMORY;
    parallel_for(team, parts_, part_task, this);
    parallel_for(team, tiles_, tile_task, this);
    aligned_free(sums_);
    return ZOO_OK;
  }

 private:
  static constexpr int64_t kMostParts = 16;

  int64_t tile_floats() const { return (taps_ + 1) * kLanes; }
  int64_t part_floats() const { return tiles_ * tile_floats(); }

  static void part_task(void* self, int worker, int64_t part) {
    const auto& call = *static_cast<const DepthwiseWeights*>(self);
    const int64_t count = call.bands_.count;
    float* sums = call.sums_ + part * call.part_floats();
    for (int64_t i = count * part / call.parts_; i < count * (part + 1) / call.parts_; ++i) {
      if (call.call_.kernel == 3) {
        call.add_up<3>(call.bands_[i], sums);
      } else {
        call.add_up<0>(call.bands_[i], sums);
      }
    }
  }

  // sums: (tiles, taps + 1, W)
  template <int kKernel>
  void add_up(const Band& band, float* sums) const {
    const Taps<kKernel> taps(call_, band.image);
    each_tile(call_.channels, [&](int64_t tile, int64_t first, int width) {
      float* own = sums + tile * tile_floats();
      beside<kKernel>(taps, band, own, first, width);
      if (kKernel > 0 && width == kLanes) {
        inside<kKernel, true>(taps, band, own, first, width);
      } else if (kKernel > 0) {
        inside<kKernel, false>(taps, band, own, first, width);
      }
    });
  }

  const float* grads(const Band& band, int64_t y, int64_t first) const {
    return grad_ + (band.image * call_.height + y) * call_.width * call_.channels + first;
  }

  // Pixels beside the border.
  template <int kKernel>
  void beside(const Taps<kKernel>& taps, const Band& band, float* sums, int64_t first,
              int width) const {
    for (int64_t y = band.top; y < band.bottom; ++y) {
      int64_t begin, end;
      taps.inside(y, &begin, &end);
      for (int64_t x = begin == 0 ? end : 0; x < call_.width; x = x + 1 == begin ? end : x + 1) {
        const Vector g = read_lanes<Float32>(grads(band, y, first) + x * call_.channels, width);
        store(sums + taps_ * kLanes, load(sums + taps_ * kLanes) + g);
        Taps<kKernel>::each_inside(taps, y, x, first, width, [&](int64_t tap, Vector v) {
          store(sums + tap * kLanes, fma(g, v, load(sums + tap * kLanes)));
        });
      }
    }
  }

  // Pixels whose taps are all inside, with the sums in registers.
  template <int kKernel, bool kWhole>
  void inside(const Taps<kKernel>& taps, const Band& band, float* sums, int64_t first,
              int channels) const {
    constexpr int kHeld = kKernel * kKernel;
    const int width = kWhole ? kLanes : channels;
    const int64_t stride = call_.channels, column = call_.x_stride[2];
    Vector held[kHeld + 1];
    int64_t offset[kHeld + 1];
#pragma GCC unroll 10
    for (int t = 0; t <= kHeld; ++t) held[t] = load(sums + t * kLanes);
#pragma GCC unroll 9
    for (int t = 0; t < kHeld; ++t) offset[t] = taps.offset[t];
    // From a kernel's corner to the first pixel below it, which the next row needs.
    const int64_t below = (2 * taps.reach + 1) * call_.x_stride[1] + taps.reach * column;
    for (int64_t y = band.top; y < band.bottom; ++y) {
      int64_t begin, end;
      taps.inside(y, &begin, &end);
      const float *corner = taps.corner(y, begin) + first, *grad = grads(band, y, first);
      for (int64_t x = begin; x < end; ++x, corner += column) {
        const Vector g = read_lanes<Float32>(grad + x * stride, width);
        __builtin_prefetch(corner + below);
        __builtin_prefetch(grad + (x + call_.width) * stride);
        held[kHeld] = held[kHeld] + g;
#pragma GCC unroll 9
        for (int t = 0; t < kHeld; ++t) {
          held[t] = fma(g, read_lanes<Float32>(corner + offset[t], width), held[t]);
        }
      }
    }
#pragma GCC unroll 10
    for (int t = 0; t <= kHeld; ++t) store(sums + t * kLanes, held[t]);
  }

  static void tile_task(void* self, int worker, int64_t tile) {
    const auto& call = *static_cast<const DepthwiseWeights*>(self);
    const int64_t count = call.taps_ + 1, first = tile * kLanes;
    float* sums = call.sums_ + tile * call.tile_floats();
    for (int64_t part = 1; part < call.parts_; ++part) {
      for (int64_t t = 0; t < count; ++t) {
        const float* other = sums + part * call.part_floats() + t * kLanes;
        store(sums + t * kLanes, load(sums + t * kLanes) + load(other));
      }
    }
    for (int64_t lane = 0; lane < least(kLanes, call.call_.channels - first); ++lane) {
      float* out = call.weight_ + (first + lane) * call.taps_;
      for (int64_t t = 0; t < call.taps_; ++t) out[t] = sums[t * kLanes + lane];
      if (call.bias_ != nullptr) call.bias_[first + lane] = sums[call.taps_ * kLanes + lane];
    }
  }

  const ZooDepthwise& call_;
  const float* const grad_;
  float *const weight_, *const bias_;
  const int64_t taps_;
  const int64_t tiles_;
  const Bands bands_;
  const int64_t parts_;
  float* sums_ = nullptr;  // (parts, tiles, taps + 1, W)
};

}  // namespace
