// An engine of `python -m export.trt`, opened for restoring.
#pragma once

#include <string>

#include "tiles.h"

namespace zoo {

// Which TensorRT this program was compiled with; null where with none.
const char* tensorrt_version();

// Opens an engine. `plugin` is the plugin's library, empty for engines that need none or have it
// within; those run code of their own, which `trusted` allows. Throws Error where it cannot.
Restorer open_engine(const std::string& path, const std::string& plugin, bool trusted);

}  // namespace zoo
