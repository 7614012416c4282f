// Loaded before a program (LD_PRELOAD), it counts the operations that change files and makes one
// of them the last:
//   FAULT_LOG=FILE   writes the name of every operation, one a line
//   FAULT_KILL=N     kills the process at operation N (from 1), a write after half of its bytes
//   FAULT_FULL=N     from operation N on the disk is full: nothing is created or written any more
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static atomic_long operations;

static long number_from(const char* variable) {
  const char* text = getenv(variable);
  return text == NULL ? 0 : atol(text);
}

enum fate { kGoOn, kDie, kFail };

static enum fate next(const char* name) {
  const long number = atomic_fetch_add(&operations, 1) + 1;
  const char* log = getenv("FAULT_LOG");
  if (log != NULL) {
    const int fd = REAL(open)(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (fd >= 0) {
      dprintf(fd, "%s\n", name);
      close(fd);
    }
  }
  if (number == number_from("FAULT_KILL")) return kDie;
  const long full = number_from("FAULT_FULL");
  return full > 0 && number >= full ? kFail : kGoOn;
}

static void die(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

/// True: the disk is full, errno is set.
static int fails(const char* name) {
  const enum fate fate = next(name);
  if (fate == kDie) die();
  if (fate == kFail) errno = ENOSPC;
  return fate == kFail;
}

/// For what needs no room on a full disk.
static void passes(const char* name) {
  if (next(name) == kDie) die();
}

static int mode_of(int flags, va_list list) {
  return (flags & O_CREAT) != 0 ? va_arg(list, int) : 0;
}

#define OPEN(name)                                                        \
  int name(const char* path, int flags, ...) {                            \
    va_list list;                                                         \
    va_start(list, flags);                                                \
    const int mode = mode_of(flags, list);                                \
    va_end(list);                                                         \
    if ((flags & (O_CREAT | O_TRUNC)) != 0 && fails("create")) return -1; \
    return REAL(name)(path, flags, mode);                                 \
  }
OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void* bytes, size_t size) {
  if (fd > STDERR_FILENO) {
    const enum fate fate = next("write");
    if (fate == kFail) {
      errno = ENOSPC;
      return -1;
    }
    if (fate == kDie) {
      if (REAL(write)(fd, bytes, size / 2) >= 0) die();
      die();
    }
  }
  return REAL(write)(fd, bytes, size);
}

#define PWRITE(name, offset_type)                                            \
  ssize_t name(int fd, const void* bytes, size_t size, offset_type offset) { \
    const enum fate fate = next("write");                                    \
    if (fate == kFail) {                                                     \
      errno = ENOSPC;                                                        \
      return -1;                                                             \
    }                                                                        \
    if (fate == kDie) {                                                      \
      if (REAL(name)(fd, bytes, size / 2, offset) >= 0) die();               \
      die();                                                                 \
    }                                                                        \
    return REAL(name)(fd, bytes, size, offset);                              \
  }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

int ftruncate(int fd, off_t size) {
  passes("truncate");
  return REAL(ftruncate)(fd, size);
}
int ftruncate64(int fd, off64_t size) {
  passes("truncate");
  return REAL(ftruncate64)(fd, size);
}
int fsync(int fd) {
  passes("fsync");
  return REAL(fsync)(fd);
}
int mkdir(const char* path, mode_t mode) {
  if (fails("mkdir")) return -1;
  return REAL(mkdir)(path, mode);
}
int rename(const char* from, const char* to) {
  passes("rename");
  return REAL(rename)(from, to);
}
int remove(const char* path) {
  passes("remove");
  return REAL(remove)(path);
}
int unlink(const char* path) {
  passes("remove");
  return REAL(unlink)(path);
}
int unlinkat(int folder, const char* path, int flags) {
  passes("remove");
  return REAL(unlinkat)(folder, path, flags);
}
int rmdir(const char* path) {
  passes("remove");
  return REAL(rmdir)(path);
}
