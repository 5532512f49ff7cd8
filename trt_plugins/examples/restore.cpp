// zoo_restore: restores a photo with an engine from `python -m export.trt`, without Python.
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>

#include "engine.h"

namespace {

struct Options {
  std::string engine, plugin, input, output;
  int tile = 0, overlap = 32;
  bool trusted = false, help = false;
};

void print_help() {
  const char* version = zoo::tensorrt_version();
  std::cout << "usage: zoo_restore ENGINE INPUT OUTPUT [--plugin LIBRARY] [--tile N] [--overlap N]\n"
               "\n"
               "Restores a photo with an engine from `python -m export.trt`.\n"
               "\n"
               "  INPUT, OUTPUT      .ppm, .pgm (8 or 16 bits)"
            << (zoo::has_png() ? " or .png (8 bits)" : "; not .png: compiled without libpng")
            << "\n"
               "  --plugin LIBRARY   libzoo_tensorrt.so, for engines that do not embed it\n"
               "  --trust-engine     allow code that is embedded in the engine: its plugin\n"
               "  --tile N           side of a tile in pixels [the engine's largest]\n"
               "  --overlap N        overlap of tiles in pixels [32]\n"
               "\n"
               "Compiled "
            << (version == nullptr ? "without TensorRT: can only print this help"
                                   : std::string("for ") + version)
            << ".\n";
}

int number(const std::string& option, const std::string& text, int least) {
  char* end = nullptr;
  const long value = std::strtol(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || value < least || value > 1 << 16) {
    throw zoo::Error(option + " " + text + ": write a number of pixels from " +
                     std::to_string(least));
  }
  return static_cast<int>(value);
}

Options read_options(int count, char** words) {
  Options options;
  std::string* places[] = {&options.engine, &options.input, &options.output};
  int given = 0;
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i];
    const auto value = [&]() -> std::string {
      if (i + 1 >= count) throw zoo::Error(word + " needs a value; see --help");
      return words[++i];
    };
    if (word == "--help" || word == "-h") {
      options.help = true;
    } else if (word == "--plugin") {
      options.plugin = value();
    } else if (word == "--tile") {
      options.tile = number(word, value(), 1);
    } else if (word == "--overlap") {
      options.overlap = number(word, value(), 0);
    } else if (word == "--trust-engine") {
      options.trusted = true;
    } else if (word.rfind("--", 0) == 0) {
      throw zoo::Error(word + ": no such option; see --help");
    } else if (given < 3) {
      *places[given++] = word;
    } else {
      throw zoo::Error(word + ": too many arguments; give an engine, an input and an output");
    }
  }
  if (!options.help && given < 3) {
    throw zoo::Error("give an engine, an input and an output; see --help");
  }
  return options;
}

}  // namespace

int main(int count, char** words) {
  try {
    const Options options = read_options(count, words);
    if (options.help) {
      print_help();
      return 0;
    }
    zoo::check_format(options.output);
    const zoo::Image image = zoo::read_image(options.input);
    const zoo::Restorer restorer = zoo::open_engine(options.engine, options.plugin, options.trusted);
    const int largest = std::min(restorer.most_height, restorer.most_width);
    const zoo::Image result =
        zoo::restore(restorer, image, options.tile > 0 ? options.tile : largest, options.overlap,
                     [](int done, int all) { std::cerr << "\rtile " << done << " of " << all; });
    std::cerr << '\n';
    zoo::write_image(options.output, result);
    std::cout << "wrote " << options.output << '\n';
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "zoo_restore: error: " << error.what() << '\n';
    return 2;
  }
}
