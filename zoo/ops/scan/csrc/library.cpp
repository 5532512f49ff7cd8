// The C interface of the scan.

#include "checked.h"
#include "kernel.h"

namespace {

// Work that makes an additional thread worth its cost, in exponentials.
constexpr int64_t kExponentialsPerThread = 100000;

Team useful_team(const ZooScan& scan, int threads, ZooOpenMP openmp) {
  // In floating point, because it may exceed any integer.
  const double work = 1.0 * scan.batch * scan.directions * scan.steps * scan.channels * scan.states;
  const double most = 1 + work / kExponentialsPerThread;
  if (threads > kMaxThreads) threads = kMaxThreads;
  return {threads < most ? threads : static_cast<int>(most), openmp};
}

using Elementwise = void (*)(const float*, float*, int64_t);

int repeat_call(Elementwise function, const float* in, float* out, int64_t count,
                int64_t repeat) {
  for (int64_t i = 0; i < repeat; ++i) function(in, out, count);
  return ZOO_OK;
}

}  // namespace

int zoo_scan_forward(const ZooScan* scan, void* y, const char* level, int threads,
                     ZooOpenMP openmp) {
  const Kernel* kernel = nullptr;
  const int status = find_kernel(level, &kernel);
  if (status != ZOO_OK) return status;
  const CheckedScan checked(*scan);
  if (checked.status() != ZOO_OK) return checked.status();
  return kernel->forward(checked.scan(), y, useful_team(*scan, threads, openmp));
}

int zoo_scan_backward(const ZooScan* scan, const ZooScanGradients* gradients, const char* level,
                      int threads, ZooOpenMP openmp) {
  const Kernel* kernel = nullptr;
  const int status = find_kernel(level, &kernel);
  if (status != ZOO_OK) return status;
  const CheckedScan checked(*scan);
  if (checked.status() != ZOO_OK) return checked.status();
  return kernel->backward(checked.scan(), *gradients, useful_team(*scan, threads, openmp));
}

const char* zoo_scan_level(const char* level) {
  const Kernel* kernel = nullptr;
  return find_kernel(level, &kernel) == ZOO_OK ? kernel->name : nullptr;
}

int zoo_scan_exp(const float* in, float* out, int64_t count, int64_t repeat, const char* level) {
  const Kernel* kernel = nullptr;
  const int status = find_kernel(level, &kernel);
  return status != ZOO_OK ? status : repeat_call(kernel->exp, in, out, count, repeat);
}

int zoo_scan_softplus(const float* in, float* out, int64_t count, int64_t repeat,
                      const char* level) {
  const Kernel* kernel = nullptr;
  const int status = find_kernel(level, &kernel);
  return status != ZOO_OK ? status : repeat_call(kernel->softplus, in, out, count, repeat);
}
