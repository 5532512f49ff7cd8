// Threads and memory for one call.
#pragma once

#include <stdint.h>

// The source of threads. PyTorch keeps a team of OpenMP threads that spin for a while after its own
// work, and a second team would compete with them for the cores. So if the caller has found
// PyTorch's GOMP_parallel, it is passed as `openmp` and used. Otherwise each call creates threads:
// this costs 20-50 us, but needs no thread pool and survives fork.
constexpr int kMaxThreads = 256;

struct Team {
  int threads;  // at most kMaxThreads
  void (*openmp)(void (*body)(void*), void* context, unsigned threads, unsigned flags);
};

// Runs one task. `worker` is less than the number of threads and is different in each thread.
using Task = void (*)(void* context, int worker, int64_t task);

// Runs tasks 0 .. tasks-1 on the team, including the caller's thread. Threads take them one at a
// time in ascending order.
void parallel_for(const Team& team, int64_t tasks, Task run, void* context);

// Allocates memory aligned to 64 bytes, zeroed if `zeroed`. Returns nullptr if out of memory.
void* aligned_allocate(int64_t bytes, bool zeroed);
void aligned_free(void* memory);
