// Threads for one call, and memory for them.
#pragma once

#include <stdint.h>

// Where threads come from. PyTorch keeps a team of OpenMP threads that go on spinning for a while
// after its own work: a second team would fight them for the cores, so that `openmp`, its
// GOMP_parallel, is used where the caller found it. Otherwise threads are created for each call,
// which costs 20-50 us, needs no pool to be kept alive and survives fork.
struct Team {
  int threads;
  void (*openmp)(void (*body)(void*), void* context, unsigned threads, unsigned flags);
};

// Handles one task; `worker` is below the number of threads and differs between threads.
using Task = void (*)(void* context, int worker, int64_t task);

// Runs tasks 0 .. tasks-1 on the team, the caller's thread included. They are handed out one by
// one in rising order.
void parallel_for(const Team& team, int64_t tasks, Task run, void* context);

// Memory aligned to 64 bytes, and `zeroed` where asked; nullptr where there is none.
void* aligned_allocate(int64_t bytes, bool zeroed);
void aligned_free(void* memory);
