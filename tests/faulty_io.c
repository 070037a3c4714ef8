/* Faults on purpose: counts what a process does to files, and makes one of these operations fail or be its last.
 *
 * Loaded with LD_PRELOAD, so that it also sees what Rust, C++ and HDF5 write. Settings are environment
 * variables, or in a running process fault_set() and fault_clock():
 *
 *   FAULT_KIND        none    count only (default)
 *                     kill    SIGKILL before operation FAULT_AT
 *                     torn    a write writes half of its bytes before; else as kill
 *                     enospc  a write writes half of its bytes; from then on nothing that needs space succeeds
 *                     eio     FAULT_AT alone fails with EIO, a close too
 *                     erofs   from FAULT_AT on nothing that changes a file or folder succeeds
 *                     int, term, stop   the process is sent SIGINT, SIGTERM or SIGSTOP, and the operation done
 *   FAULT_AT          number of the operation, from 1; 0: never
 *   FAULT_PATH        only operations on absolute paths with this text in them count
 *   FAULT_COUNT_FILE  the number of operations seen, as text, up to date at any time
 *   FAULT_LOG_FILE    a line "number operation path" for each
 *   FAULT_CLOCK       "readings jump": from that many readings of the wall clock on it is wrong by so many
 *                     seconds; the monotonic clock stays right, as it does in life
 *
 * Operations: open (for writing), write, sync, rename, unlink (rmdir too), mkdir, truncate, close (of what is
 * open for writing). Each process counts for itself. Linux only.
 */
#define _GNU_SOURCE
#undef _FORTIFY_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PLACE (2 * PATH_MAX)
enum kind { NONE, KILL, TORN, ENOSPC_, EIO_, EROFS_, INT, TERM, STOP };
static const char *const names[] = {"none", "kill", "torn", "enospc", "eio", "erofs", "int", "term", "stop"};

static enum kind kind;
static long at, seen;
static char wanted[PATH_MAX];
static int count_file = -1, log_file = -1;
static long readings, wrong_from = -1;
static double wrong_by;

static long raw_open(const char *path, int flags) {
    return syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0644);
}

void fault_set(const char *name, long number, const char *path) {
    kind = NONE;
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i])) kind = (enum kind)i;
    at = number;
    snprintf(wanted, sizeof wanted, "%s", path);
    __atomic_store_n(&seen, 0, __ATOMIC_SEQ_CST);
}

long fault_seen(void) { return __atomic_load_n(&seen, __ATOMIC_SEQ_CST); }

void fault_files(const char *count, const char *log) {
    count_file = *count ? (int)raw_open(count, O_WRONLY | O_CREAT | O_TRUNC) : -1;
    log_file = *log ? (int)raw_open(log, O_WRONLY | O_CREAT | O_APPEND) : -1;
}

void fault_clock(long after, double jump) {
    readings = 0, wrong_from = after, wrong_by = jump;
}

static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

__attribute__((constructor)) static void start(void) {
    long after;
    double jump;
    fault_set(setting("FAULT_KIND"), atol(setting("FAULT_AT")), setting("FAULT_PATH"));
    fault_files(setting("FAULT_COUNT_FILE"), setting("FAULT_LOG_FILE"));
    if (sscanf(setting("FAULT_CLOCK"), "%ld %lf", &after, &jump) == 2) fault_clock(after, jump);
}

/* Absolute path of a name in a folder, or of an open file where there is no name. */
static void place_of(char *place, int folder, const char *name) {
    char link[64];
    long length;
    if (name && *name == '/') {
        snprintf(place, PLACE, "%s", name);
        return;
    }
    if (folder == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    length = syscall(SYS_readlinkat, AT_FDCWD, link, place, PATH_MAX - 1);
    place[length > 0 ? length : 0] = 0;
    if (name) snprintf(place + strlen(place), PLACE - strlen(place), "/%s", name);
}

static void note(int file, const char *text, long length, int from_start) {
    if (file < 0) return;
    if (from_start)
        syscall(SYS_pwrite64, file, text, length, 0L);
    else
        syscall(SYS_write, file, text, length);
}

enum what { GO, FAIL, HALF };

/* What to do with an operation: go on, fail with errno set, or write half and (unless the disk is full) die. */
static enum what meet(const char *what, int folder, const char *name, int needs_space, int frees) {
    char place[PLACE], line[PLACE + 64];
    int before = errno;
    long number;
    if (!*wanted && kind == NONE && count_file < 0 && log_file < 0) return GO;
    place_of(place, folder, name);
    errno = before;
    if (*place != '/' || !strncmp(place, "/proc/", 6)) return GO; /* a pipe, a socket, a terminal */
    if (!strncmp(place, "/dev/", 5) && strncmp(place, "/dev/shm/", 9)) return GO;
    if (!strstr(place, wanted)) return GO;
    number = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
    note(count_file, line, snprintf(line, sizeof line, "%ld\n", number), 1);
    note(log_file, line, snprintf(line, sizeof line, "%ld %s %s\n", number, what, place), 0);
    errno = before;
    if (!at || number < at) return GO;
    int now = number == at, write = !strcmp(what, "write"), close = !strcmp(what, "close");
    switch (kind) {
    case TORN:
        if (now && write) return HALF;
        /* fall through */
    case KILL:
        if (now) syscall(SYS_kill, getpid(), SIGKILL);
        return GO;
    case INT:
    case TERM:
    case STOP:
        if (now) syscall(SYS_kill, getpid(), kind == INT ? SIGINT : kind == TERM ? SIGTERM : SIGSTOP);
        return GO;
    case ENOSPC_:
        if (now && write) return HALF;
        if (frees || close || !(now || needs_space)) return GO;
        errno = ENOSPC;
        return FAIL;
    case EIO_:
        errno = EIO;
        return now ? FAIL : GO;
    case EROFS_:
        if (close) return GO;
        errno = EROFS;
        return FAIL;
    default:
        return GO;
    }
}

static void die_if_torn(void) {
    if (kind == TORN) syscall(SYS_kill, getpid(), SIGKILL);
}

/* Opening */

static int opened(int folder, const char *name, int flags, mode_t mode) {
    if (((flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT) &&
        meet("open", folder, name, flags & O_CREAT, 0) == FAIL)
        return -1;
    return (int)syscall(SYS_openat, folder, name, flags, mode);
}

#define MODE(flags)                                     \
    mode_t mode = 0;                                    \
    if (flags & (O_CREAT | __O_TMPFILE)) {              \
        va_list rest;                                   \
        va_start(rest, flags);                          \
        mode = va_arg(rest, mode_t);                    \
        va_end(rest);                                   \
    }
#define LARGE(flags) ((flags) | O_LARGEFILE)

int open(const char *n, int flags, ...) { MODE(flags) return opened(AT_FDCWD, n, flags, mode); }
int open64(const char *n, int flags, ...) { MODE(flags) return opened(AT_FDCWD, n, LARGE(flags), mode); }
int openat(int f, const char *n, int flags, ...) { MODE(flags) return opened(f, n, flags, mode); }
int openat64(int f, const char *n, int flags, ...) { MODE(flags) return opened(f, n, LARGE(flags), mode); }
int __open_2(const char *n, int flags) { return opened(AT_FDCWD, n, flags, 0); }
int __open64_2(const char *n, int flags) { return opened(AT_FDCWD, n, LARGE(flags), 0); }
int __openat_2(int f, const char *n, int flags) { return opened(f, n, flags, 0); }
int __openat64_2(int f, const char *n, int flags) { return opened(f, n, LARGE(flags), 0); }
int creat(const char *n, mode_t mode) { return opened(AT_FDCWD, n, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *n, mode_t mode) { return creat(n, mode); }

#define REAL(type, name, ...)                                          \
    static type (*real)(__VA_ARGS__);                                  \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, name)

static int refused(const char *name, const char *mode) {
    return strpbrk(mode, "wa+") && meet("open", AT_FDCWD, name, !!strpbrk(mode, "wa"), 0) == FAIL;
}

FILE *fopen(const char *name, const char *mode) {
    REAL(FILE *, "fopen", const char *, const char *);
    return refused(name, mode) ? NULL : real(name, mode);
}

FILE *fopen64(const char *name, const char *mode) {
    REAL(FILE *, "fopen64", const char *, const char *);
    return refused(name, mode) ? NULL : real(name, mode);
}

/* Writing */

static ssize_t half(ssize_t done) {
    die_if_torn();
    return done;
}

ssize_t write(int file, const void *bytes, size_t count) {
    switch (meet("write", file, NULL, 1, 0)) {
    case FAIL: return -1;
    case HALF:
        if (count < 2) count = 2; /* of one byte nothing is written */
        if (kind == ENOSPC_ && count == 2) { errno = ENOSPC; return -1; }
        return half(syscall(SYS_write, file, bytes, count / 2));
    default: return syscall(SYS_write, file, bytes, count);
    }
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset) {
    switch (meet("write", file, NULL, 1, 0)) {
    case FAIL: return -1;
    case HALF: return half(syscall(SYS_pwrite64, file, bytes, (count + 1) / 2, offset));
    default: return syscall(SYS_pwrite64, file, bytes, count, offset);
    }
}
ssize_t pwrite(int file, const void *bytes, size_t count, off_t offset) {
    return pwrite64(file, bytes, count, offset);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    switch (meet("write", file, NULL, 1, 0)) {
    case FAIL: return -1;
    case HALF: return half(syscall(SYS_write, file, parts[0].iov_base, (parts[0].iov_len + 1) / 2));
    default: return syscall(SYS_writev, file, parts, count);
    }
}

ssize_t sendfile64(int to, int from, off64_t *offset, size_t count) {
    switch (meet("write", to, NULL, 1, 0)) {
    case FAIL: return -1;
    case HALF: return half(syscall(SYS_sendfile, to, from, offset, count / 2));
    default: return syscall(SYS_sendfile, to, from, offset, count);
    }
}
ssize_t sendfile(int to, int from, off_t *offset, size_t count) { return sendfile64(to, from, offset, count); }

ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t count, unsigned flags) {
    switch (meet("write", to, NULL, 1, 0)) {
    case FAIL: return -1;
    case HALF: return half(syscall(SYS_copy_file_range, from, a, to, b, count / 2, flags));
    default: return syscall(SYS_copy_file_range, from, a, to, b, count, flags);
    }
}

size_t fwrite(const void *bytes, size_t size, size_t count, FILE *file) {
    REAL(size_t, "fwrite", const void *, size_t, size_t, FILE *);
    int number = fileno(file);
    enum what what = number < 3 ? GO : meet("write", number, NULL, 1, 0);
    if (what == FAIL) return 0;
    if (what == HALF) {
        size_t done = real(bytes, size, count / 2, file);
        fflush(file);
        die_if_torn();
        errno = ENOSPC;
        return done;
    }
    return real(bytes, size, count, file);
}

int ftruncate64(int file, off64_t length) {
    return meet("truncate", file, NULL, 1, 0) == FAIL ? -1 : (int)syscall(SYS_ftruncate, file, length);
}
int ftruncate(int file, off_t length) { return ftruncate64(file, length); }
int truncate64(const char *name, off64_t length) {
    return meet("truncate", AT_FDCWD, name, 1, 0) == FAIL ? -1 : (int)syscall(SYS_truncate, name, length);
}
int truncate(const char *name, off_t length) { return truncate64(name, length); }
int posix_fallocate64(int file, off64_t offset, off64_t length) {
    if (meet("truncate", file, NULL, 1, 0) == FAIL) return errno;
    return syscall(SYS_fallocate, file, 0, offset, length) ? errno : 0;
}
int posix_fallocate(int file, off_t offset, off_t length) { return posix_fallocate64(file, offset, length); }

int fsync(int file) { return meet("sync", file, NULL, 0, 0) == FAIL ? -1 : (int)syscall(SYS_fsync, file); }
int fdatasync(int file) { return meet("sync", file, NULL, 0, 0) == FAIL ? -1 : (int)syscall(SYS_fdatasync, file); }

/* Closing: the file is closed in any case, as Linux does. */

static int writable(int file) {
    int before = errno, flags = (int)syscall(SYS_fcntl, file, F_GETFL);
    errno = before;
    return flags >= 0 && (flags & O_ACCMODE) != O_RDONLY;
}

int close(int file) {
    if (file > 2 && writable(file) && meet("close", file, NULL, 0, 0) == FAIL) {
        int error = errno;
        syscall(SYS_close, file);
        errno = error;
        return -1;
    }
    return (int)syscall(SYS_close, file);
}

int fclose(FILE *file) {
    REAL(int, "fclose", FILE *);
    int number = fileno(file);
    if (number > 2 && writable(number) && meet("close", number, NULL, 0, 0) == FAIL) {
        int error = errno;
        real(file);
        errno = error;
        return EOF;
    }
    return real(file);
}

/* Names */

int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    return meet("rename", b, to, 0, 0) == FAIL ? -1 : (int)syscall(SYS_renameat2, a, from, b, to, flags);
}
int renameat(int a, const char *from, int b, const char *to) { return renameat2(a, from, b, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int a, const char *from, int b, const char *to, int flags) {
    return meet("link", b, to, 1, 0) == FAIL ? -1 : (int)syscall(SYS_linkat, a, from, b, to, flags);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }
int unlinkat(int folder, const char *name, int flags) {
    return meet("unlink", folder, name, 0, 1) == FAIL ? -1 : (int)syscall(SYS_unlinkat, folder, name, flags);
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }
int remove(const char *name) {
    struct stat found;
    return !lstat(name, &found) && S_ISDIR(found.st_mode) ? rmdir(name) : unlink(name);
}
int mkdirat(int folder, const char *name, mode_t mode) {
    return meet("mkdir", folder, name, 1, 0) == FAIL ? -1 : (int)syscall(SYS_mkdirat, folder, name, mode);
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

/* The wall clock */

static int is_wrong(void) {
    return wrong_from >= 0 && __atomic_add_fetch(&readings, 1, __ATOMIC_SEQ_CST) > wrong_from;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int status = (int)syscall(SYS_clock_gettime, clock, now);
    if (!status && clock == CLOCK_REALTIME && is_wrong()) now->tv_sec += (time_t)wrong_by;
    return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec read;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &read);
    now->tv_sec = read.tv_sec, now->tv_usec = read.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec read;
    clock_gettime(CLOCK_REALTIME, &read);
    if (now) *now = read.tv_sec;
    return read.tv_sec;
}
