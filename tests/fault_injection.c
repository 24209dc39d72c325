// Loaded with LD_PRELOAD: makes one system call of the program, or one allocation, go wrong.
//
//   MOCO_FAULT_IN=TEXT      count calls on files whose path holds TEXT: opening, write, fsync,
//                           close, rename
//   MOCO_FAULT_CALL=K       the K-th of them, from 1, goes wrong
//   MOCO_FAULT_KIND=KIND    enospc, eio: it fails; short: half is written; kill: the process dies
//                           before it
//   MOCO_FAULT_ALLOC=K      the K-th allocation fails (malloc, and so operator new; aligned_alloc)
//   MOCO_FAULT_ALIGNED=K    the K-th aligned_alloc fails: the engine's own memory
//   MOCO_FAULT_THREAD=K     from the K-th on, no thread can be started
// Writes the call's name to the file MOCO_FAULT_LOG when it did something.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

enum { kDescriptors = 1024 };
static char watched[kDescriptors];
static long calls, allocations, aligned, threads;

static long number(const char *name) {
  const char *text = getenv(name);
  return text ? atol(text) : 0;
}

static void leave_a_note(const char *call) {
  const char *path = getenv("MOCO_FAULT_LOG");
  if (!path) return;
  const long log = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  syscall(SYS_write, log, call, strlen(call));
  syscall(SYS_close, log);
}

static int is_watched_path(const char *path) {
  const char *text = getenv("MOCO_FAULT_IN");
  return text && strstr(path, text) != NULL;
}

static int is_watched(int descriptor) {
  return descriptor >= 0 && descriptor < kDescriptors && watched[descriptor];
}

// Is this call the one? Sets errno, or kills. is_short: set where half of it is to be done.
static int goes_wrong(const char *call, int *is_short) {
  if (__atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST) != number("MOCO_FAULT_CALL")) return 0;
  leave_a_note(call);
  const char *kind = getenv("MOCO_FAULT_KIND");
  if (strcmp(kind, "kill") == 0) raise(SIGKILL);
  if (strcmp(kind, "short") == 0) {
    if (is_short) *is_short = 1;
    return 0;
  }
  errno = strcmp(kind, "eio") == 0 ? EIO : ENOSPC;
  return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int watch(int descriptor, int yes) {
  if (descriptor >= 0 && descriptor < kDescriptors) watched[descriptor] = (char)yes;
  return descriptor;
}

int open(const char *path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  const int yes = is_watched_path(path);
  if (yes && goes_wrong("open", NULL)) return -1;
  return watch((int)syscall(SYS_openat, AT_FDCWD, path, flags, mode), yes);
}

int mkostemp(char *pattern, int flags) {
  const int yes = is_watched_path(pattern);
  if (yes && goes_wrong("mkostemp", NULL)) return -1;
  return watch(REAL(mkostemp)(pattern, flags), yes);
}

ssize_t write(int descriptor, const void *bytes, size_t count) {
  int is_short = 0;
  if (is_watched(descriptor) && goes_wrong("write", &is_short)) return -1;
  return syscall(SYS_write, descriptor, bytes, is_short ? count / 2 : count);
}

int fsync(int descriptor) {
  if (is_watched(descriptor) && goes_wrong("fsync", NULL)) return -1;
  return (int)syscall(SYS_fsync, descriptor);
}

int close(int descriptor) {
  const int wrong = is_watched(descriptor) && goes_wrong("close", NULL);
  const int reason = errno;
  watch(descriptor, 0);
  const int result = (int)syscall(SYS_close, descriptor);
  if (!wrong) return result;
  errno = reason;
  return -1;
}

int rename(const char *from, const char *to) {
  if (is_watched_path(to) && goes_wrong("rename", NULL)) return -1;
  return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

static int fails(long *counter, const char *name) {
  if (__atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST) != number(name)) return 0;
  leave_a_note(name);
  errno = ENOMEM;
  return 1;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument) {
  const long wrong = number("MOCO_FAULT_THREAD");
  if (!wrong || __atomic_add_fetch(&threads, 1, __ATOMIC_SEQ_CST) < wrong)
    return REAL(pthread_create)(thread, attributes, run, argument);
  leave_a_note("pthread_create");
  return EAGAIN;
}

void *malloc(size_t size) {
  return fails(&allocations, "MOCO_FAULT_ALLOC") ? NULL : __libc_malloc(size);
}

void *aligned_alloc(size_t alignment, size_t size) {
  if (fails(&allocations, "MOCO_FAULT_ALLOC") || fails(&aligned, "MOCO_FAULT_ALIGNED")) return NULL;
  return __libc_memalign(alignment, size);
}
