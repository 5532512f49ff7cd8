#include "threads.h"

#include <stdlib.h>

#if defined(_WIN32)
#include <windows.h>
#else
#include <pthread.h>
#include <sys/mman.h>
#endif

namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kLargePage = size_t(1) << 21;

struct Job {
  Task run;
  void* context;
  int64_t tasks, next;
  int workers;
};

void work(void* argument) {
  Job& job = *static_cast<Job*>(argument);
  const int worker = __atomic_fetch_add(&job.workers, 1, __ATOMIC_RELAXED);
  for (;;) {
    const int64_t task = __atomic_fetch_add(&job.next, 1, __ATOMIC_RELAXED);
    if (task >= job.tasks) return;
    job.run(job.context, worker, task);
  }
}

#if defined(_WIN32)
using Thread = HANDLE;
DWORD WINAPI enter(void* job) {
  work(job);
  return 0;
}
bool start(Thread* thread, Job* job) {
  *thread = CreateThread(nullptr, 0, enter, job, 0, nullptr);
  return *thread != nullptr;
}
void join(Thread thread) {
  WaitForSingleObject(thread, INFINITE);
  CloseHandle(thread);
}
#else
using Thread = pthread_t;
void* enter(void* job) {
  work(job);
  return nullptr;
}
bool start(Thread* thread, Job* job) { return pthread_create(thread, nullptr, enter, job) == 0; }
void join(Thread thread) { pthread_join(thread, nullptr); }
#endif

void run_on_own_threads(int threads, Job* job) {
  Thread started[kMaxThreads];
  int count = 0;
  // If a thread cannot be created, the others run its tasks.
  while (count < threads - 1 && start(&started[count], job)) ++count;
  work(job);
  while (count > 0) join(started[--count]);
}

}  // namespace

void parallel_for(const Team& team, int64_t tasks, Task run, void* context) {
  const int threads = team.threads < tasks ? team.threads : static_cast<int>(tasks);
  Job job = {run, context, tasks, 0, 0};
  if (threads <= 1) {
    if (tasks > 0) work(&job);
  } else if (team.openmp != nullptr) {
    team.openmp(work, &job, static_cast<unsigned>(threads), 0);
  } else {
    run_on_own_threads(threads, &job);
  }
}

void* aligned_allocate(int64_t bytes, bool zeroed) {
  // Visits to tokens of a large image are far apart in memory. With small pages, each visit would
  // need another entry of the TLB.
  const bool large = static_cast<size_t>(bytes) >= 4 * kLargePage;
  const size_t alignment = large ? kLargePage : kAlignment;
  const size_t size = static_cast<size_t>(bytes) + alignment + sizeof(void*);
  void* memory = zeroed ? calloc(1, size) : malloc(size);
  if (memory == nullptr) return nullptr;
  uintptr_t aligned = reinterpret_cast<uintptr_t>(memory) + sizeof(void*) + alignment - 1;
  aligned -= aligned % alignment;
#if defined(MADV_HUGEPAGE)
  if (large) {
    const size_t whole = static_cast<size_t>(bytes) / kLargePage * kLargePage;
    madvise(reinterpret_cast<void*>(aligned), whole, MADV_HUGEPAGE);
  }
#endif
  reinterpret_cast<void**>(aligned)[-1] = memory;
  return reinterpret_cast<void*>(aligned);
}

void aligned_free(void* memory) {
  if (memory != nullptr) free(static_cast<void**>(memory)[-1]);
}
