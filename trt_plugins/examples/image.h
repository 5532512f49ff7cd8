// Photos as planes of floats in [0, 1]. Reads and writes PPM and PGM; PNG only with libpng.
//
// PPM (P6, colour) and PGM (P5, gray) have 8 or 16 bits. PNG is read and written with 8 bits and
// without alpha, and only if the program was compiled with ZOO_PNG.
#pragma once

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(ZOO_PNG)
#include <png.h>
#endif

namespace zoo {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Pixels as (channels, height, width), row by row.
struct Image {
  int channels = 0, height = 0, width = 0;
  int most = 255;  // largest value in a file: 255 or 65535
  std::vector<float> data;

  Image() = default;
  Image(int channels_, int height_, int width_, int most_ = 255)
      : channels(channels_),
        height(height_),
        width(width_),
        most(most_),
        data(static_cast<size_t>(channels_) * height_ * width_) {}

  size_t index(int channel, int row, int column) const {
    return (static_cast<size_t>(channel) * height + row) * width + column;
  }
  float& at(int channel, int row, int column) { return data[index(channel, row, column)]; }
  float at(int channel, int row, int column) const { return data[index(channel, row, column)]; }
};

inline std::string suffix(const std::string& path) {
  const size_t dot = path.find_last_of("./\\");
  std::string found = dot == std::string::npos || path[dot] != '.' ? "" : path.substr(dot);
  std::transform(found.begin(), found.end(), found.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  return found;
}

inline int rounded(float value, int most) {
  const float clamped = std::min(1.0f, std::max(0.0f, value));  // a NaN becomes 0
  return static_cast<int>(std::lround(clamped * static_cast<float>(most)));
}

namespace detail {

constexpr int kMostSide = 1 << 16;

// The next number of a PPM's header; comments run from # to the end of their line.
inline int header_number(std::istream& file, const std::string& path) {
  for (;;) {
    const int next = file.peek();
    if (next == '#') {
      std::string comment;
      std::getline(file, comment);
    } else if (next != EOF && std::isspace(next)) {
      file.get();
    } else {
      break;
    }
  }
  int number = -1;
  if (!(file >> number) || number < 1) throw Error(path + ": its header is damaged");
  return number;
}

inline Image read_netpbm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(path + ": cannot open it");
  char magic[2] = {};
  file.read(magic, 2);
  if (!file || magic[0] != 'P' || (magic[1] != '5' && magic[1] != '6')) {
    throw Error(path + ": not a binary PPM (P6) or PGM (P5) file");
  }
  const int width = header_number(file, path), height = header_number(file, path);
  const int most = header_number(file, path);
  if (width > kMostSide || height > kMostSide || most > 65535) {
    throw Error(path + ": its header is damaged");
  }
  file.get();  // one whitespace character ends the header
  const int channels = magic[1] == '6' ? 3 : 1, bytes = most > 255 ? 2 : 1;
  Image image(channels, height, width, most > 255 ? 65535 : 255);
  std::vector<uint8_t> row(static_cast<size_t>(width) * channels * bytes);
  for (int y = 0; y < height; ++y) {
    file.read(reinterpret_cast<char*>(row.data()), static_cast<std::streamsize>(row.size()));
    if (!file) throw Error(path + ": ends early; it may be truncated");
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < channels; ++c) {
        const size_t i = (static_cast<size_t>(x) * channels + c) * bytes;
        const int value = bytes == 2 ? row[i] << 8 | row[i + 1] : row[i];
        image.at(c, y, x) = static_cast<float>(value) / static_cast<float>(most);
      }
    }
  }
  return image;
}

inline void write_netpbm(const std::string& path, const Image& image) {
  std::ofstream file(path, std::ios::binary);
  file << (image.channels == 3 ? "P6" : "P5") << '\n'
       << image.width << ' ' << image.height << '\n'
       << image.most << '\n';
  const int bytes = image.most > 255 ? 2 : 1;
  std::vector<uint8_t> row(static_cast<size_t>(image.width) * image.channels * bytes);
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) {
      for (int c = 0; c < image.channels; ++c) {
        const size_t i = (static_cast<size_t>(x) * image.channels + c) * bytes;
        const int value = rounded(image.at(c, y, x), image.most);
        if (bytes == 2) row[i] = static_cast<uint8_t>(value >> 8);
        row[i + bytes - 1] = static_cast<uint8_t>(value & 255);
      }
    }
    file.write(reinterpret_cast<const char*>(row.data()), static_cast<std::streamsize>(row.size()));
  }
  file.flush();
  if (!file) throw Error(path + ": cannot write it; check the folder and the space left");
}

#if defined(ZOO_PNG)

inline Image read_png(const std::string& path) {
  png_image file = {};
  file.version = PNG_IMAGE_VERSION;
  if (!png_image_begin_read_from_file(&file, path.c_str())) throw Error(path + ": " + file.message);
  const bool colour = (file.format & PNG_FORMAT_FLAG_COLOR) != 0;
  file.format = colour ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  const int channels = colour ? 3 : 1;
  std::vector<uint8_t> pixels(PNG_IMAGE_SIZE(file));
  const png_color white = {255, 255, 255};  // background of transparent pixels
  if (!png_image_finish_read(&file, &white, pixels.data(), 0, nullptr)) {
    throw Error(path + ": " + file.message);
  }
  Image image(channels, static_cast<int>(file.height), static_cast<int>(file.width));
  size_t i = 0;
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) {
      for (int c = 0; c < channels; ++c) image.at(c, y, x) = static_cast<float>(pixels[i++]) / 255;
    }
  }
  return image;
}

inline void write_png(const std::string& path, const Image& image) {
  png_image file = {};
  file.version = PNG_IMAGE_VERSION;
  file.width = static_cast<png_uint_32>(image.width);
  file.height = static_cast<png_uint_32>(image.height);
  file.format = image.channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  std::vector<uint8_t> pixels;
  pixels.reserve(image.data.size());
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) {
      for (int c = 0; c < image.channels; ++c) {
        pixels.push_back(static_cast<uint8_t>(rounded(image.at(c, y, x), 255)));
      }
    }
  }
  if (!png_image_write_to_file(&file, path.c_str(), 0, pixels.data(), 0, nullptr)) {
    throw Error(path + ": " + file.message);
  }
}

#endif

}  // namespace detail

inline constexpr bool has_png() {
#if defined(ZOO_PNG)
  return true;
#else
  return false;
#endif
}

// Throws Error unless this program can read and write files with this name's extension.
inline void check_format(const std::string& path) {
  const std::string kind = suffix(path);
  if (kind == ".ppm" || kind == ".pgm" || (kind == ".png" && has_png())) return;
  throw Error(path + ": " +
              (kind == ".png" ? "this program was compiled without libpng; use PPM files"
                              : "the name must end in .ppm, .pgm or .png"));
}

inline Image read_image(const std::string& path) {
  check_format(path);
#if defined(ZOO_PNG)
  if (suffix(path) == ".png") return detail::read_png(path);
#endif
  return detail::read_netpbm(path);
}

// Writes the file completely or not at all.
inline void write_image(const std::string& path, const Image& image) {
  check_format(path);
  const std::string temporary = path + ".part";
  try {
#if defined(ZOO_PNG)
    if (suffix(path) == ".png") {
      detail::write_png(temporary, image);
    } else
#endif
    {
      detail::write_netpbm(temporary, image);
    }
    if (std::rename(temporary.c_str(), path.c_str()) != 0) {
      throw Error(path + ": cannot write it: " + std::strerror(errno));
    }
  } catch (...) {
    std::remove(temporary.c_str());
    throw;
  }
}

}  // namespace zoo
