/* Records, for files below $POWERCUT_ROOT, what a disk would be told: names made, changed and taken away, and fsync.
 * Preloaded (LD_PRELOAD) into a process; powercut.py builds from the record what a power cut leaves at any point of it.
 * A line an event: SEQ-less, in the order of the appends: KIND \t INODE \t PATH \t OTHER. The bytes of a file that is
 * synced are copied to $POWERCUT_STORE/N, N in OTHER. fsync itself is left out: only its promise matters here. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *root, *store;
static int logfd = -1;
static atomic_long serial;
static pthread_mutex_t door = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
  root = getenv("POWERCUT_ROOT");
  store = getenv("POWERCUT_STORE");
  char path[PATH_MAX];
  if (!root || !store) return;
  snprintf(path, sizeof path, "%s/log", store);
  logfd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int absolute(int at, const char *path, char *out) {
  if (!root || logfd < 0 || !path) return 0;
  char joined[2 * PATH_MAX];
  if (path[0] == '/') snprintf(joined, sizeof joined, "%s", path);
  else {
    char base[PATH_MAX], link[64];
    if (at == AT_FDCWD) { if (!getcwd(base, sizeof base)) return 0; }
    else {
      snprintf(link, sizeof link, "/proc/self/fd/%d", at);
      ssize_t n = readlink(link, base, sizeof base - 1);
      if (n <= 0) return 0;
      base[n] = 0;
    }
    snprintf(joined, sizeof joined, "%s/%s", base, path);
  }
  /* "//", "/./" and a slash at the end go; ".." does not occur below the root */
  char *to = out;
  for (char *from = joined; *from && to < out + PATH_MAX - 1;) {
    if (from[0] == '/' && from[1] == '/') { from++; continue; }
    if (from[0] == '/' && from[1] == '.' && (from[2] == '/' || !from[2])) { from += 2; continue; }
    *to++ = *from++;
  }
  while (to > out + 1 && to[-1] == '/') to--;
  *to = 0;
  size_t n = strlen(root);
  return !strncmp(out, root, n) && (out[n] == '/' || !out[n]);
}

static void say(const char *kind, unsigned long inode, const char *path, const char *other) {
  char line[3 * PATH_MAX];
  int kept = errno, n = snprintf(line, sizeof line, "%s\t%lu\t%s\t%s\n", kind, inode, path, other);
  if (syscall(SYS_write, logfd, line, n) != n) abort();
  errno = kept;
}

static unsigned long inode_of(const char *path) {
  struct stat found;
  int kept = errno;
  unsigned long inode = fstatat(AT_FDCWD, path, &found, AT_SYMLINK_NOFOLLOW) ? 0 : found.st_ino;
  errno = kept;
  return inode;
}

#define REAL(name) ({ static typeof(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name); real; })

static void opened(int fd, int existed, const char *path, int flags) {
  struct stat found;
  if (fd < 0 || fstat(fd, &found)) return;
  if (!existed) say("create", found.st_ino, path, "");
  else if (flags & O_TRUNC) say("dirty", found.st_ino, path, "");
  if (existed && (flags & (O_WRONLY | O_RDWR))) say("dirty", found.st_ino, path, "");
}

static int open_any(int at, const char *path, int flags, mode_t mode) {
  if (path && !strncmp(path, "POWERCUT_MARK:", 14)) {
    if (logfd >= 0) say("mark", 0, path + 14, "");
    errno = ENOENT;
    return -1;
  }
  char whole[PATH_MAX];
  int ours = absolute(at, path, whole) && !(flags & O_DIRECTORY) && (flags & O_TMPFILE) != O_TMPFILE && (flags & (O_CREAT | O_TRUNC | O_WRONLY | O_RDWR));
  int existed = 1;
  if (ours) { pthread_mutex_lock(&door); existed = inode_of(whole) != 0; }
  int fd = syscall(SYS_openat, at, path, flags, mode);
  if (ours) { opened(fd, existed, whole, flags); pthread_mutex_unlock(&door); }
  return fd;
}

#define MODE(flags, mode) va_list rest; va_start(rest, flags); mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0; va_end(rest)
int open(const char *path, int flags, ...) { MODE(flags, mode); return open_any(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, mode); return open_any(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags, mode); return open_any(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags, mode); return open_any(at, path, flags | O_LARGEFILE, mode); }
int creat(const char *path, mode_t mode) { return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

static FILE *fopen_any(FILE *(*real)(const char *, const char *), const char *path, const char *how) {
  char whole[PATH_MAX];
  int ours = absolute(AT_FDCWD, path, whole) && (how[0] != 'r' || strchr(how, '+'));
  int existed = ours ? inode_of(whole) != 0 : 1;
  FILE *file = real(path, how);
  if (ours && file) opened(fileno(file), existed, whole, O_WRONLY);
  return file;
}
FILE *fopen(const char *path, const char *how) { return fopen_any(REAL(fopen), path, how); }
FILE *fopen64(const char *path, const char *how) { return fopen_any(REAL(fopen64), path, how); }

static int renamed(int result, int from_at, const char *from, int to_at, const char *to) {
  char a[PATH_MAX], b[PATH_MAX];
  if (!result && absolute(from_at, from, a) && absolute(to_at, to, b)) say("rename", inode_of(b), a, b);
  return result;
}
#define LOCKED(call) ({ pthread_mutex_lock(&door); int found = (call); pthread_mutex_unlock(&door); found; })
int rename(const char *from, const char *to) { return LOCKED(renamed(REAL(rename)(from, to), AT_FDCWD, from, AT_FDCWD, to)); }
int renameat(int fa, const char *from, int ta, const char *to) { return LOCKED(renamed(REAL(renameat)(fa, from, ta, to), fa, from, ta, to)); }
int renameat2(int fa, const char *from, int ta, const char *to, unsigned flags) {
  return LOCKED(renamed(REAL(renameat2)(fa, from, ta, to, flags), fa, from, ta, to));
}

static int linked(int result, int from_at, const char *from, int to_at, const char *to) {
  char a[PATH_MAX], b[PATH_MAX];
  if (!result && absolute(from_at, from, a) && absolute(to_at, to, b)) say("link", inode_of(b), a, b);
  return result;
}
int link(const char *from, const char *to) { return LOCKED(linked(REAL(link)(from, to), AT_FDCWD, from, AT_FDCWD, to)); }
int linkat(int fa, const char *from, int ta, const char *to, int flags) {
  return LOCKED(linked(REAL(linkat)(fa, from, ta, to, flags), fa, from, ta, to));
}

static int gone(int result, int at, const char *path) {
  char whole[PATH_MAX];
  if (!result && absolute(at, path, whole)) say("unlink", 0, whole, "");
  return result;
}
int unlink(const char *path) { return LOCKED(gone(REAL(unlink)(path), AT_FDCWD, path)); }
int unlinkat(int at, const char *path, int flags) { return LOCKED(gone(REAL(unlinkat)(at, path, flags), at, path)); }
int rmdir(const char *path) { return LOCKED(gone(REAL(rmdir)(path), AT_FDCWD, path)); }
int remove(const char *path) { return LOCKED(gone(REAL(remove)(path), AT_FDCWD, path)); }

static int made(int result, int at, const char *path) {
  char whole[PATH_MAX];
  if (!result && absolute(at, path, whole)) say("mkdir", inode_of(whole), whole, "");
  return result;
}
int mkdir(const char *path, mode_t mode) { return LOCKED(made(REAL(mkdir)(path, mode), AT_FDCWD, path)); }
int mkdirat(int at, const char *path, mode_t mode) { return LOCKED(made(REAL(mkdirat)(at, path, mode), at, path)); }

static int synced(int fd) {
  char link[64], path[PATH_MAX], whole[PATH_MAX], number[32] = "";
  struct stat found;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n <= 0 || fstat(fd, &found)) return 0;
  path[n] = 0;
  if (!absolute(AT_FDCWD, path, whole)) return 0;
  if (S_ISDIR(found.st_mode)) { say("syncdir", found.st_ino, whole, ""); return 0; }
  snprintf(number, sizeof number, "%d-%ld", getpid(), atomic_fetch_add(&serial, 1));
  char copy[PATH_MAX];
  snprintf(copy, sizeof copy, "%s/%s", store, number);
  int in = syscall(SYS_openat, AT_FDCWD, link, O_RDONLY), out = syscall(SYS_openat, AT_FDCWD, copy, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  char part[1 << 16];
  ssize_t got;
  while (in >= 0 && (got = read(in, part, sizeof part)) > 0)
    if (syscall(SYS_write, out, part, got) != got) abort();
  if (in >= 0) syscall(SYS_close, in);
  syscall(SYS_close, out);
  say("sync", found.st_ino, whole, number);
  return 0;
}
int fsync(int fd) { return logfd < 0 ? REAL(fsync)(fd) : synced(fd); }
int fdatasync(int fd) { return logfd < 0 ? REAL(fdatasync)(fd) : synced(fd); }
