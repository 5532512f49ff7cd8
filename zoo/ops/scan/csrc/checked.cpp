#include "checked.h"

#include <stdlib.h>
#include <string.h>

namespace {

// Number of floats that a scan keeps, or -1 if that is no int64_t.
int64_t kept_floats(const ZooScan& scan) {
  const int64_t times = scan.steps > 0 ? (scan.steps - 1) / ZOO_KEPT_STEPS : 0;
  int64_t floats = times;
  const int64_t sizes[] = {scan.batch, scan.directions, scan.states, scan.channels};
  for (const int64_t size : sizes) {
    if (__builtin_mul_overflow(floats, size, &floats)) return -1;
  }
  return floats;
}

int check_sizes(const ZooScan& scan) {
  const int64_t sizes[] = {scan.batch,    scan.tokens, scan.directions, scan.steps,
                           scan.channels, scan.rank,   scan.states};
  for (const int64_t size : sizes) {
    if (size < 0) return ZOO_WRONG_SIZE;
  }
  // Without a projection, delta has a value for each channel. With one, a rank of 0 would look like
  // none. The recurrence needs a state, and the sum over directions needs one.
  const bool whole = scan.delta_weight == nullptr;
  if (whole ? scan.rank != scan.channels : scan.rank == 0) return ZOO_WRONG_SIZE;
  if (scan.states == 0 || scan.directions == 0) return ZOO_WRONG_SIZE;
  const bool keeps = scan.kept != nullptr;
  return keeps && scan.kept_floats != kept_floats(scan) ? ZOO_WRONG_SIZE : ZOO_OK;
}

bool aligned(const void* pointer, uintptr_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

int check_pointers(const ZooScan& scan) {
  const uintptr_t token = scan.dtype == ZOO_FLOAT32 ? 4 : 2;
  const void* tokens[] = {scan.u, scan.delta, scan.B, scan.C};
  const void* parameters[] = {scan.delta_weight, scan.delta_bias, scan.A, scan.D,
                              scan.kept};
  bool all = aligned(scan.order, sizeof(int32_t));
  for (const void* pointer : tokens) all &= aligned(pointer, token);
  for (const void* pointer : parameters) all &= aligned(pointer, sizeof(float));
  return all ? ZOO_OK : ZOO_MISALIGNED;
}

// Copies the path of a direction. `visited` has a byte for each token: `mark` if this path has been
// there. Bytes and not bits, because neighbours would wait for each other.
int copy_path(const volatile int32_t* from, int64_t steps, int64_t tokens, int32_t* to,
              uint8_t* visited, uint8_t mark) {
  bool repeated = false;
  for (int64_t s = 0; s < steps; ++s) {
    const int32_t token = from[s];  // read once: see CheckedScan
    to[s] = token;
    if (token == -1) continue;
    if (token < 0 || token >= tokens) return ZOO_WRONG_ENTRY;
    repeated |= visited[token] == mark;
    visited[token] = mark;
  }
  return repeated ? ZOO_REPEATED_TOKEN : ZOO_OK;
}

}  // namespace

CheckedScan::CheckedScan(const ZooScan& given) : scan_(given), status_(check_sizes(given)) {
  if (status_ == ZOO_OK) status_ = check_pointers(given);
  if (status_ == ZOO_OK) status_ = copy_order();
}

CheckedScan::~CheckedScan() { free(order_); }

int CheckedScan::copy_order() {
  constexpr int64_t kMarks = 255;
  const int64_t paths = (scan_.order_stride == 0 ? 1 : scan_.batch) * scan_.directions;
  const int64_t bytes = paths * scan_.steps * static_cast<int64_t>(sizeof(int32_t));
  order_ = static_cast<int32_t*>(malloc(bytes > 0 ? bytes : 1));
  auto* visited = static_cast<uint8_t*>(calloc(scan_.tokens + 1, 1));
  int status = order_ != nullptr && visited != nullptr ? ZOO_OK : ZOO_OUT_OF_MEMORY;
  for (int64_t path = 0; path < paths && status == ZOO_OK; ++path) {
    const int64_t image = path / scan_.directions, direction = path % scan_.directions;
    if (path > 0 && path % kMarks == 0) memset(visited, 0, scan_.tokens);
    status = copy_path(scan_.order + image * scan_.order_stride + direction * scan_.steps,
                       scan_.steps, scan_.tokens, order_ + path * scan_.steps, visited,
                       static_cast<uint8_t>(1 + path % kMarks));
  }
  free(visited);
  scan_.order = order_;
  if (scan_.order_stride != 0) scan_.order_stride = scan_.directions * scan_.steps;
  return status;
}
