// Opens an engine from `python -m export.trt` to restore images.
#pragma once

#include <string>

#include "tiles.h"

namespace zoo {

// Name and version of the TensorRT that this program was compiled with; null without TensorRT.
const char* tensorrt_version();

// Opens an engine. `plugin` is the plugin's library; empty if the engine needs none or embeds it.
// An embedded plugin is code from the engine file and runs only if `trusted`. Throws Error on
// failure.
Restorer open_engine(const std::string& path, const std::string& plugin, bool trusted);

}  // namespace zoo
