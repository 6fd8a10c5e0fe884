/* Preloaded: counts the file calls of a process under one folder, and at the n-th kills, fails, shortens or records.

   cc -O1 -shared -fPIC -o shim.so shim.c -ldl -lpthread;  LD_PRELOAD=shim.so python ...
   torture_arm() starts it; before that every call goes through unchanged. A forked child has its own counts. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN_R = 1, OPEN_W = 2, WRITE = 4, FSYNC = 8, TRUNC = 16, RENAME = 32, UNLINK = 64, MKDIR = 128, RMDIR = 256, DUP = 512 };
enum { OFF = 0, COUNT = 1, KILL = 2, TORN = 3, FAIL = 4, FAIL_ON = 5, SHORT = 6, SHORT_ON = 7, TRACE = 8 };

#define MOST 65536
static char folder[4096];
static size_t folder_length;
static int mode, fault, mask, trace_fd = -1;
static long wanted, seen, hits;
static unsigned char ours[MOST];
static pthread_mutex_t one = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

void torture_arm(const char *path, int how, long n, int error, int kinds, int trace) {
    pthread_mutex_lock(&one);
    snprintf(folder, sizeof folder, "%s", path);
    folder_length = strlen(folder);
    wanted = n, fault = error, mask = kinds, trace_fd = trace, seen = hits = 0;
    memset(ours, 0, sizeof ours);
    mode = how;
    pthread_mutex_unlock(&one);
}
long torture_seen(void) { return seen; }
long torture_hits(void) { return hits; }

/* the absolute path of a call; 1 if it is under the folder */
static int under(int at, const char *path, char *out) {
    char base[2048];
    if (mode == OFF || !path) return 0;
    if (path[0] == '/') snprintf(out, 4096, "%s", path);
    else {
        if (at == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return 0;
        } else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", at);
            ssize_t n = readlink(link, base, sizeof base - 1);
            if (n < 0) return 0;
            base[n] = 0;
        }
        snprintf(out, 4096, "%s/%s", base, path);
    }
    return !strncmp(out, folder, folder_length) && (out[folder_length] == '/' || !out[folder_length]);
}

/* counts a call: 0 it goes through, 1 it fails with errno set, 2 its write is shortened; or never returns */
static int point(int kind) {
    if (mode == OFF || mode == TRACE || !(kind & mask)) return 0;
    long n = ++seen;
    if (mode == COUNT || n < wanted) return 0;
    int once = n == wanted;
    if (once && (mode == KILL || mode == TORN)) {
        if (mode == TORN && kind == WRITE) return 3;
        kill(getpid(), SIGKILL);
        pause();
    }
    if ((once && mode == FAIL) || mode == FAIL_ON) {
        hits++;
        errno = fault;
        return 1;
    }
    if (kind == WRITE && ((once && mode == SHORT) || mode == SHORT_ON)) {
        hits++;
        return 2;
    }
    return 0;
}

static void all(const void *data, size_t n) {
    const char *p = data;
    while (n) {
        ssize_t k = syscall(SYS_write, trace_fd, p, n);
        if (k <= 0) _exit(99);
        p += k, n -= (size_t)k;
    }
}

static void record(int kind, int fd, int flags, int64_t at, const void *data, int64_t n, const char *a, const char *b) {
    if (mode != TRACE) return;
    int keep = errno;
    int32_t small[5] = {kind, fd, flags, (int32_t)(a ? strlen(a) : 0), (int32_t)(b ? strlen(b) : 0)};
    int64_t large[2] = {at, n};
    all(small, sizeof small), all(large, sizeof large);
    if (a) all(a, strlen(a));
    if (b) all(b, strlen(b));
    if (data) all(data, (size_t)n);
    errno = keep;
}

static int open_common(int at, const char *path, int flags, mode_t rights) {
    REAL(int, "openat64", int, const char *, int, ...);
    char full[4096];
    if (!under(at, path, full)) return real(at, path, flags, rights);
    pthread_mutex_lock(&one);
    int writes = (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC), fd = -1;
    if (point(writes ? OPEN_W : OPEN_R) != 1) {
        fd = real(at, path, flags, rights);
        if (fd >= 0 && fd < MOST) {
            ours[fd] = 1;
            record(writes ? OPEN_W : OPEN_R, fd, flags, 0, NULL, 0, full, NULL);
        }
    }
    pthread_mutex_unlock(&one);
    return fd;
}

#define RIGHTS \
    mode_t rights = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        rights = va_arg(rest, mode_t); \
        va_end(rest); \
    }
int open(const char *path, int flags, ...) { RIGHTS return open_common(AT_FDCWD, path, flags, rights); }
int open64(const char *path, int flags, ...) { RIGHTS return open_common(AT_FDCWD, path, flags, rights); }
int openat(int at, const char *path, int flags, ...) { RIGHTS return open_common(at, path, flags, rights); }
int openat64(int at, const char *path, int flags, ...) { RIGHTS return open_common(at, path, flags, rights); }
int creat(const char *path, mode_t rights) {
    return open_common(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, rights);
}

int close(int fd) {
    REAL(int, "close", int);
    if (fd >= 0 && fd < MOST) ours[fd] = 0;
    return real(fd);
}

/* a second descriptor of a file of ours, which Polars makes of a file object of Python, is one of ours */
static int is_ours(int fd);
static int duplicate(int from, int to) {
    if (to >= 0 && to < MOST && is_ours(from)) {
        pthread_mutex_lock(&one);
        ours[to] = 1;
        record(DUP, to, from, 0, NULL, 0, NULL, NULL);
        pthread_mutex_unlock(&one);
    }
    return to;
}
int dup(int fd) {
    REAL(int, "dup", int);
    return duplicate(fd, real(fd));
}
int dup2(int fd, int to) {
    REAL(int, "dup2", int, int);
    return duplicate(fd, real(fd, to));
}
int fcntl64(int fd, int what, ...) {
    static int (*real)(int, int, ...);
    if (!real) real = (int (*)(int, int, ...))dlsym(RTLD_NEXT, "fcntl64");
    va_list rest;
    va_start(rest, what);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    int done = real(fd, what, argument);
    return what == F_DUPFD || what == F_DUPFD_CLOEXEC ? duplicate(fd, done) : done;
}
int fcntl(int fd, int what, ...) {
    va_list rest;
    va_start(rest, what);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    return fcntl64(fd, what, argument);
}

static int is_ours(int fd) { return mode != OFF && fd >= 0 && fd < MOST && ours[fd]; }

ssize_t write(int fd, const void *data, size_t n) {
    REAL(ssize_t, "write", int, const void *, size_t);
    if (!is_ours(fd)) return real(fd, data, n);
    pthread_mutex_lock(&one);
    int what = n ? point(WRITE) : 0;
    ssize_t done = -1;
    if (what != 1) {
        done = real(fd, data, what && n > 1 ? n / 2 : n);
        if (what == 3) kill(getpid(), SIGKILL), pause();
        if (done > 0) record(WRITE, fd, 0, lseek(fd, 0, SEEK_CUR) - done, data, done, NULL, NULL);
    }
    pthread_mutex_unlock(&one);
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    if (!is_ours(fd)) return real(fd, data, n, at);
    pthread_mutex_lock(&one);
    int what = n ? point(WRITE) : 0;
    ssize_t done = -1;
    if (what != 1) {
        done = real(fd, data, what && n > 1 ? n / 2 : n, at);
        if (what == 3) kill(getpid(), SIGKILL), pause();
        if (done > 0) record(WRITE, fd, 0, at, data, done, NULL, NULL);
    }
    pthread_mutex_unlock(&one);
    return done;
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { return pwrite64(fd, data, n, at); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    if (!is_ours(fd)) return real(fd, parts, count);
    for (int k = 0; k < count; k++)  /* a shorter write is allowed, and callers go on from there */
        if (parts[k].iov_len) return write(fd, parts[k].iov_base, parts[k].iov_len);
    return 0;
}

#define ON_DESCRIPTOR(name, kind, parameters, arguments, length) \
    int name parameters { \
        static int (*real) parameters; \
        if (!real) real = (int (*) parameters)dlsym(RTLD_NEXT, #name); \
        if (!is_ours(fd)) return real arguments; \
        pthread_mutex_lock(&one); \
        int done = point(kind) == 1 ? -1 : real arguments; \
        if (!done) record(kind, fd, 0, length, NULL, 0, NULL, NULL); \
        pthread_mutex_unlock(&one); \
        return done; \
    }
ON_DESCRIPTOR(fsync, FSYNC, (int fd), (fd), 0)
ON_DESCRIPTOR(fdatasync, FSYNC, (int fd), (fd), 0)
ON_DESCRIPTOR(ftruncate, TRUNC, (int fd, off_t n), (fd, n), n)
ON_DESCRIPTOR(ftruncate64, TRUNC, (int fd, off64_t n), (fd, n), n)

#define ON_PATH(kind, at, path, call) \
    char full[4096]; \
    if (!under(at, path, full)) return call; \
    pthread_mutex_lock(&one); \
    int done = point(kind) == 1 ? -1 : call; \
    if (!done) record(kind, -1, 0, 0, NULL, 0, full, NULL); \
    pthread_mutex_unlock(&one); \
    return done

int mkdirat(int at, const char *path, mode_t rights) {
    REAL(int, "mkdirat", int, const char *, mode_t);
    ON_PATH(MKDIR, at, path, real(at, path, rights));
}
int mkdir(const char *path, mode_t rights) { return mkdirat(AT_FDCWD, path, rights); }
int unlinkat(int at, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    ON_PATH(flags & AT_REMOVEDIR ? RMDIR : UNLINK, at, path, real(at, path, flags));
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    REAL(int, "renameat2", int, const char *, int, const char *, unsigned);
    char a[4096], b[4096];
    if (!(under(from_at, from, a) | under(to_at, to, b))) return real(from_at, from, to_at, to, flags);
    pthread_mutex_lock(&one);
    int done = point(RENAME) == 1 ? -1 : real(from_at, from, to_at, to, flags);
    if (!done) record(RENAME, -1, 0, 0, NULL, 0, a, b);
    pthread_mutex_unlock(&one);
    return done;
}
int renameat(int from_at, const char *from, int to_at, const char *to) { return renameat2(from_at, from, to_at, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }
