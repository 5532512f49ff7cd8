// Restores an image in overlapping, blended tiles, so that an image of any size fits an engine.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "image.h"

namespace zoo {

// A function that restores an image, and the limits of its input size in pixels.
struct Restorer {
  int channels = 3, scale = 1;
  int least_height = 1, least_width = 1, most_height = 1 << 16, most_width = 1 << 16;
  std::function<Image(const Image&)> run;  // for images within these limits
};

struct Span {
  int start, stop;
};

// Splits a side into tiles that overlap by at least `overlap`: equal, as few and as short as can be.
inline std::vector<Span> spans(int size, int tile, int overlap) {
  if (size <= tile) return {{0, size}};
  const int step = tile - overlap, count = (size - overlap + step - 1) / step;
  const long long covered = static_cast<long long>(count - 1) * overlap + size;
  const int length = static_cast<int>((covered + count - 1) / count);
  std::vector<Span> found;
  for (long long number = 0; number < count; ++number) {
    const int start = static_cast<int>(number * (size - length) / (count - 1));
    found.push_back({start, start + length});
  }
  return found;
}

// Weights along a tile's side. They decrease linearly towards neighbouring tiles, but not to zero.
inline std::vector<float> ramp(Span span, int size, int overlap, int scale) {
  const int length = (span.stop - span.start) * scale, reach = overlap * scale;
  std::vector<float> weight(static_cast<size_t>(length), 1.0f);
  for (int i = 0; i < length && reach > 0; ++i) {
    const float here = static_cast<float>(i) + 0.5f, there = static_cast<float>(length - i) - 0.5f;
    float& w = weight[static_cast<size_t>(i)];
    if (span.start > 0) w = std::min(w, here / static_cast<float>(reach));
    if (span.stop < size) w = std::min(w, there / static_cast<float>(reach));
  }
  return weight;
}

// Cuts a part from an image; beyond the border of the image its edge is repeated.
inline Image cut(const Image& image, Span rows, Span columns, int height, int width) {
  Image part(image.channels, height, width, image.most);
  for (int c = 0; c < part.channels; ++c) {
    for (int y = 0; y < height; ++y) {
      const int row = std::min(rows.start + y, rows.stop - 1);
      for (int x = 0; x < width; ++x) {
        part.at(c, y, x) = image.at(c, row, std::min(columns.start + x, columns.stop - 1));
      }
    }
  }
  return part;
}

inline Image restore_tiled(const Restorer& restorer, const Image& image, int tile, int overlap,
                           const std::function<void(int, int)>& progress) {
  const int tile_height = std::min(tile, restorer.most_height);
  const int tile_width = std::min(tile, restorer.most_width);
  if (overlap < 0 || std::min(tile_height, tile_width) < std::max(1, 2 * overlap)) {
    throw Error("the tile of " + std::to_string(std::min(tile_height, tile_width)) +
                " pixels is less than twice the overlap of " + std::to_string(overlap));
  }
  const int scale = restorer.scale;
  const std::vector<Span> rows = spans(image.height, tile_height, overlap);
  const std::vector<Span> columns = spans(image.width, tile_width, overlap);
  Image total(image.channels, image.height * scale, image.width * scale, image.most);
  std::vector<float> weights(static_cast<size_t>(total.height) * total.width);
  int done = 0;
  for (const Span& row : rows) {
    const std::vector<float> down = ramp(row, image.height, overlap, scale);
    for (const Span& column : columns) {
      const std::vector<float> across = ramp(column, image.width, overlap, scale);
      const int height = std::max(row.stop - row.start, restorer.least_height);
      const int width = std::max(column.stop - column.start, restorer.least_width);
      const Image part = restorer.run(cut(image, row, column, height, width));
      if (part.channels != image.channels || part.height != height * scale ||
          part.width != width * scale) {
        throw Error("the size of the engine's output does not match its scale");
      }
      for (size_t y = 0; y < down.size(); ++y) {
        for (size_t x = 0; x < across.size(); ++x) {
          const int to_row = row.start * scale + static_cast<int>(y);
          const int to_column = column.start * scale + static_cast<int>(x);
          const float weight = down[y] * across[x];
          weights[static_cast<size_t>(to_row) * total.width + to_column] += weight;
          for (int c = 0; c < total.channels; ++c) {
            total.at(c, to_row, to_column) +=
                weight * part.at(c, static_cast<int>(y), static_cast<int>(x));
          }
        }
      }
      progress(++done, static_cast<int>(rows.size() * columns.size()));
    }
  }
  for (int c = 0; c < total.channels; ++c) {
    float* plane = total.data.data() + total.index(c, 0, 0);
    for (size_t i = 0; i < weights.size(); ++i) plane[i] /= weights[i];
  }
  return total;
}

// Restores an image. A colour network also restores gray images, and a gray network colour images.
inline Image restore(const Restorer& restorer, const Image& image, int tile, int overlap,
                     const std::function<void(int, int)>& progress = [](int, int) {}) {
  if (image.channels == restorer.channels) {
    return restore_tiled(restorer, image, tile, overlap, progress);
  }
  const size_t plane = static_cast<size_t>(image.height) * image.width;
  if (restorer.channels == 3 && image.channels == 1) {
    Image colour(3, image.height, image.width, image.most);
    for (size_t c = 0; c < 3; ++c) {
      std::copy(image.data.begin(), image.data.end(), colour.data.begin() + c * plane);
    }
    const Image found = restore_tiled(restorer, colour, tile, overlap, progress);
    Image gray(1, found.height, found.width, image.most);
    for (size_t i = 0; i < gray.data.size(); ++i) {
      const size_t step = gray.data.size();
      gray.data[i] = (found.data[i] + found.data[i + step] + found.data[i + 2 * step]) / 3;
    }
    return gray;
  }
  if (restorer.channels == 1 && image.channels == 3) {
    Image colour(3, image.height * restorer.scale, image.width * restorer.scale, image.most);
    for (size_t c = 0; c < 3; ++c) {
      Image one(1, image.height, image.width, image.most);
      std::copy_n(image.data.begin() + c * plane, plane, one.data.begin());
      const Image found = restore_tiled(restorer, one, tile, overlap, progress);
      std::copy(found.data.begin(), found.data.end(),
                colour.data.begin() + c * found.data.size());
    }
    return colour;
  }
  throw Error("the engine takes images with " + std::to_string(restorer.channels) +
              " channels; this program restores photos, not bursts of RAW frames");
}

}  // namespace zoo
