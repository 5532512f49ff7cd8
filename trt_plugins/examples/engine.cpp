// Runs engines with TensorRT or TensorRT-RTX. Without its headers, opening an engine is an error.
#include "engine.h"

#if defined(__has_include) && !defined(ZOO_WITHOUT_TENSORRT)
#if __has_include(<NvInferRuntime.h>) && __has_include(<cuda_runtime_api.h>)
#define ZOO_TENSORRT 1
#endif
#endif

#if !defined(ZOO_TENSORRT)

namespace zoo {

const char* tensorrt_version() { return nullptr; }

Restorer open_engine(const std::string& path, const std::string&, bool) {
  throw Error(path + ": this program was compiled without TensorRT and cannot run engines; compile "
                     "it with TENSORRT_ROOT set, see CMakeLists.txt");
}

}  // namespace zoo

#else

#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include <fstream>
#include <iostream>
#include <memory>

#define ZOO_TEXT_OF(number) #number
#define ZOO_TEXT(number) ZOO_TEXT_OF(number)

namespace zoo {
namespace {

class Logger : public nvinfer1::ILogger {
  void log(Severity severity, const char* message) noexcept override {
    if (severity <= Severity::kWARNING) std::cerr << "TensorRT: " << message << '\n';
  }
};

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw Error(std::string(what) + ": " + cudaGetErrorString(status));
}

std::vector<char> content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw Error(path + ": cannot open it");
  std::vector<char> content(static_cast<size_t>(file.tellg()));
  file.seekg(0);
  file.read(content.data(), static_cast<std::streamsize>(content.size()));
  if (!file) throw Error(path + ": cannot read it");
  return content;
}

// GPU memory that grows on demand.
class Buffer {
 public:
  ~Buffer() { cudaFree(data_); }
  void* of(size_t bytes) {
    if (bytes > bytes_) {
      cudaFree(data_);
      data_ = nullptr;
      bytes_ = 0;
      check(cudaMalloc(&data_, bytes), "memory of the GPU");
      bytes_ = bytes;
    }
    return data_;
  }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

class Session {
 public:
  Session(const std::string& path, const std::string& plugin, bool trusted) : path_(path) {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
      throw Error(path + ": engines need an NVIDIA GPU, and CUDA finds none on this machine");
    }
    runtime_.reset(nvinfer1::createInferRuntime(logger_));
    if (!runtime_) throw Error("TensorRT does not start");
    runtime_->setEngineHostCodeAllowed(trusted);
    if (!plugin.empty() &&
        runtime_->getPluginRegistry().loadLibrary(plugin.c_str()) == nullptr) {
      throw Error(plugin + ": TensorRT finds no plugin in it");
    }
    const std::vector<char> content = content_of(path);
    engine_.reset(runtime_->deserializeCudaEngine(content.data(), content.size()));
    if (!engine_) {
      throw Error(path + ": TensorRT cannot load it; an engine must be built for this version and "
                         "GPU and needs its plugin: --plugin, or --trust-engine if embedded");
    }
    context_.reset(engine_->createExecutionContext());
    if (!context_) throw Error(path + ": too little memory on the GPU for its largest sizes");
    check(cudaStreamCreate(&stream_), "a stream");
    const bool as_ours = engine_->getNbIOTensors() == 2 &&
                         engine_->getTensorIOMode("input") == nvinfer1::TensorIOMode::kINPUT &&
                         engine_->getTensorIOMode("output") == nvinfer1::TensorIOMode::kOUTPUT &&
                         engine_->getTensorShape("input").nbDims == 4 &&
                         engine_->getTensorDataType("input") == nvinfer1::DataType::kFLOAT;
    if (!as_ours) {
      throw Error(path + ": must have one image as input and one as output; this program restores "
                         "photos only");
    }
  }
  ~Session() {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  nvinfer1::Dims profile(nvinfer1::OptProfileSelector which) const {
    return engine_->getProfileShape("input", 0, which);
  }

  // Returns the output size for an input size.
  nvinfer1::Dims output_of(const nvinfer1::Dims& input) {
    if (!context_->setInputShape("input", input)) {
      throw Error(path_ + ": the input's size is outside the engine's profile");
    }
    return context_->getTensorShape("output");
  }

  Image run(const Image& image) {
    nvinfer1::Dims4 size(1, image.channels, image.height, image.width);
    const nvinfer1::Dims found = output_of(size);
    Image output(static_cast<int>(found.d[1]), static_cast<int>(found.d[2]),
                 static_cast<int>(found.d[3]), image.most);
    const size_t in = image.data.size() * sizeof(float), out = output.data.size() * sizeof(float);
    context_->setTensorAddress("input", input_.of(in));
    context_->setTensorAddress("output", output_.of(out));
    check(cudaMemcpyAsync(input_.of(in), image.data.data(), in, cudaMemcpyHostToDevice, stream_),
          "the image");
    if (!context_->enqueueV3(stream_)) throw Error(path_ + ": the engine failed");
    check(cudaMemcpyAsync(output.data.data(), output_.of(out), out, cudaMemcpyDeviceToHost, stream_),
          "the result");
    check(cudaStreamSynchronize(stream_), "the engine");
    return output;
  }

 private:
  std::string path_;
  Logger logger_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  cudaStream_t stream_ = nullptr;
  Buffer input_, output_;
};

}  // namespace

const char* tensorrt_version() {
#if defined(TRT_MAJOR_RTX)
  return "TensorRT-RTX " ZOO_TEXT(TRT_MAJOR_RTX) "." ZOO_TEXT(TRT_MINOR_RTX);
#else
  return "TensorRT " ZOO_TEXT(NV_TENSORRT_MAJOR) "." ZOO_TEXT(NV_TENSORRT_MINOR);
#endif
}

Restorer open_engine(const std::string& path, const std::string& plugin, bool trusted) {
  auto session = std::make_shared<Session>(path, plugin, trusted);
  const nvinfer1::Dims least = session->profile(nvinfer1::OptProfileSelector::kMIN);
  const nvinfer1::Dims most = session->profile(nvinfer1::OptProfileSelector::kMAX);
  if (least.d[0] > 1) throw Error(path + ": its smallest batch is not 1; export it with --batch 1");
  const nvinfer1::Dims output = session->output_of(nvinfer1::Dims4(1, most.d[1], most.d[2], most.d[3]));
  Restorer restorer;
  restorer.channels = static_cast<int>(most.d[1]);
  restorer.scale = static_cast<int>(output.d[2] / most.d[2]);
  restorer.least_height = static_cast<int>(least.d[2]);
  restorer.least_width = static_cast<int>(least.d[3]);
  restorer.most_height = static_cast<int>(most.d[2]);
  restorer.most_width = static_cast<int>(most.d[3]);
  restorer.run = [session](const Image& image) { return session->run(image); };
  return restorer;
}

}  // namespace zoo

#endif
