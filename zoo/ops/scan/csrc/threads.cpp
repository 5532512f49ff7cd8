#include "threads.h"

#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#include <windows.h>
#else
#include <pthread.h>
#include <sys/mman.h>
#endif

namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kLargePage = size_t(1) << 21;

// What lies before a block: the memory that the system gave, and how many bytes the block has.
struct Owner {
  void* memory;
  size_t bytes;
};
Owner* owner_of(void* block) { return static_cast<Owner*>(block) - 1; }

// A few freed blocks are kept for the next call. A network makes hundreds of calls, and the system
// would take the memory back after each and clear its pages for the next. Large images need more
// than is kept; there, calls take so long that it does not matter.
constexpr int kKeptBlocks = 3;
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kMostKept = 0;  // the sanitizer knows the bounds of blocks that are not used again
#else
constexpr size_t kMostKept = size_t(8) << 20;
#endif
void* kept_blocks[kKeptBlocks];  // the largest first, unless threads change them at the same time

void* take_from(void** place) { return __atomic_exchange_n(place, nullptr, __ATOMIC_ACQ_REL); }

void put_or_free(void** place, void* block) {
  void* nothing = nullptr;
  if (!__atomic_compare_exchange_n(place, &nothing, block, false, __ATOMIC_ACQ_REL,
                                   __ATOMIC_RELAXED)) {
    free(owner_of(block)->memory);  // another thread has put one there
  }
}

// A kept block of at least this size, or null.
void* take_kept(size_t bytes) {
  for (int i = kKeptBlocks - 1; i >= 0 && bytes <= kMostKept; --i) {
    void* block = take_from(&kept_blocks[i]);
    if (block == nullptr) continue;
    if (owner_of(block)->bytes >= bytes) return block;
    put_or_free(&kept_blocks[i], block);
  }
  return nullptr;
}

// Keeps the block if there is place for it, or a smaller one to free instead.
void keep_or_free(void* block) {
  for (int i = 0; i < kKeptBlocks && owner_of(block)->bytes <= kMostKept; ++i) {
    void* other = take_from(&kept_blocks[i]);
    const bool larger = other != nullptr && owner_of(other)->bytes > owner_of(block)->bytes;
    put_or_free(&kept_blocks[i], larger ? other : block);
    if (other == nullptr) return;
    if (!larger) block = other;
  }
  free(owner_of(block)->memory);
}

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
  if (void* kept = take_kept(static_cast<size_t>(bytes))) {
    return zeroed ? memset(kept, 0, static_cast<size_t>(bytes)) : kept;
  }
  // Visits to tokens of a large image are far apart in memory. With small pages, each visit would
  // need another entry of the TLB.
  const bool large = static_cast<size_t>(bytes) >= 4 * kLargePage;
  const size_t alignment = large ? kLargePage : kAlignment;
  const size_t size = static_cast<size_t>(bytes) + alignment + sizeof(Owner);
  void* memory = zeroed ? calloc(1, size) : malloc(size);
  if (memory == nullptr) return nullptr;
  uintptr_t aligned = reinterpret_cast<uintptr_t>(memory) + sizeof(Owner) + alignment - 1;
  aligned -= aligned % alignment;
#if defined(MADV_HUGEPAGE)
  if (large) {
    const size_t whole = static_cast<size_t>(bytes) / kLargePage * kLargePage;
    madvise(reinterpret_cast<void*>(aligned), whole, MADV_HUGEPAGE);
  }
#endif
  void* block = reinterpret_cast<void*>(aligned);
  *owner_of(block) = {memory, static_cast<size_t>(bytes)};
  return block;
}

void aligned_free(void* memory) {
  if (memory != nullptr) keep_or_free(memory);
}
