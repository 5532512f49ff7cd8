// libzoo_preload.so: registers the plugin in a program that can only load libraries.
//
// Triton Inference Server opens libraries from its command line, but calls nothing in them. When
// this library is opened, it makes TensorRT load libzoo_tensorrt.so, from its own folder or from
// the path in the environment variable ZOO_PLUGIN.
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

std::string plugin_path() {
  if (const char* asked = std::getenv("ZOO_PLUGIN")) return asked;
  Dl_info own = {};
  dladdr(reinterpret_cast<void*>(&plugin_path), &own);
  const std::string path = own.dli_fname == nullptr ? "" : own.dli_fname;
  return path.substr(0, path.find_last_of('/') + 1) + "libzoo_tensorrt.so";
}

const bool kLoaded = [] {
  const std::string path = plugin_path();
  nvinfer1::IPluginRegistry* registry = getPluginRegistry();
  const bool loaded = registry != nullptr && registry->loadLibrary(path.c_str()) != nullptr;
  if (!loaded) std::fprintf(stderr, "zoo_preload: TensorRT cannot load %s\n", path.c_str());
  return loaded;
}();

}  // namespace
