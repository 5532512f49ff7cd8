// Runs the C++ program's image and tiling code around a function that shows where tiles lie.
// usage: tiles_probe INPUT OUTPUT TILE OVERLAP LEAST MOST CHANNELS
#include <cstdlib>
#include <iostream>

#include "tiles.h"

int main(int, char** words) {
  try {
    const zoo::Image image = zoo::read_image(words[1]);
    zoo::Restorer restorer;
    restorer.scale = 2;
    restorer.least_height = restorer.least_width = std::atoi(words[5]);
    restorer.most_height = restorer.most_width = std::atoi(words[6]);
    restorer.channels = std::atoi(words[7]);
    restorer.run = [&](const zoo::Image& part) {
      if (part.height > restorer.most_height || part.width > restorer.most_width ||
          part.height < restorer.least_height || part.width < restorer.least_width ||
          part.channels != restorer.channels) {
        throw zoo::Error("a tile that the engine does not take");
      }
      zoo::Image found(part.channels, 2 * part.height, 2 * part.width, part.most);
      for (int c = 0; c < part.channels; ++c) {
        for (int y = 0; y < found.height; ++y) {
          for (int x = 0; x < found.width; ++x) {
            const float here = 1 - 0.01f * static_cast<float>(y) - 0.005f * static_cast<float>(x);
            found.at(c, y, x) = here * part.at(c, y / 2, x / 2);
          }
        }
      }
      return found;
    };
    const zoo::Image result = zoo::restore(restorer, image, std::atoi(words[3]), std::atoi(words[4]));
    zoo::write_image(words[2], result);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 2;
  }
}
