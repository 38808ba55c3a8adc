/* The seam between a program and its disk: loaded with LD_PRELOAD, it counts every call that changes a file below one directory
 * and, at a call that was chosen, kills the process before or after it, lets half of it happen, or makes it fail. It also writes
 * down each change, so that what a power cut would have left can be worked out (power.py).
 *
 * It stands below everything in the process: Python's os module, SQLite, and whatever else goes through the C library. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NOTHING, KILL_BEFORE, KILL_AFTER, TORN, NO_SPACE, IO_ERROR };

static __thread int inside;
static char root[PATH_MAX];
static size_t root_length;
static long counter, chosen, failing;
static int what, trace = -1;

/* Everything from the next call on counts. `call` is the one at which `action` happens, counted from 1; failures last `calls`. */
void seam_arm(const char *directory, long call, int action, long calls, int trace_fd)
{
    snprintf(root, sizeof root, "%s", directory);
    root_length = strlen(root);
    counter = 0;
    chosen = call;
    what = action;
    failing = calls;
    trace = trace_fd;
}

long seam_count(void) { return counter; }

static void die(void)
{
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    for (;;)
        pause();
}

static int below(const char *path) { return root_length && !strncmp(path, root, root_length) && path[root_length] == '/'; }

static int name_of(int fd, char *path)
{
    char link[64];
    struct stat facts;
    if (!root_length || fd < 0 || fstat(fd, &facts) || !(S_ISREG(facts.st_mode) || S_ISDIR(facts.st_mode)))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return below(path);
}

static int absolute(int dirfd, const char *path, char *whole)
{
    if (path[0] == '/' || dirfd == AT_FDCWD) {
        snprintf(whole, PATH_MAX, "%s", path);
        return below(whole);
    }
    char folder[PATH_MAX];
    if (!name_of(dirfd, folder) && strcmp(folder, root))
        return 0;
    if (snprintf(whole, PATH_MAX, "%s/%s", folder, path) >= PATH_MAX)
        return 0;
    return below(whole);
}

/* One line of the trace: operation, inode, two numbers, lengths of two names and of data; then those. Written at once. */
static void tell(char operation, uint64_t inode, uint64_t a, uint64_t b, const char *one, const char *two,
                 const struct iovec *data, int parts, size_t size)
{
    if (trace < 0)
        return;
    uint64_t numbers[3] = {inode, a, b};
    uint32_t lengths[3] = {one ? strlen(one) : 0, two ? strlen(two) : 0, size};
    size_t total = 1 + sizeof numbers + sizeof lengths + lengths[0] + lengths[1] + size;
    char *line = malloc(total), *at = line;
    *at++ = operation;
    at = mempcpy(at, numbers, sizeof numbers);
    at = mempcpy(at, lengths, sizeof lengths);
    at = mempcpy(at, one ? one : "", lengths[0]);
    at = mempcpy(at, two ? two : "", lengths[1]);
    for (int part = 0; part < parts && size; part++) {
        size_t take = data[part].iov_len < size ? data[part].iov_len : size;
        at = mempcpy(at, data[part].iov_base, take);
        size -= take;
    }
    syscall(SYS_write, trace, line, total);
    free(line);
}

static uint64_t inode_of(int fd)
{
    struct stat facts;
    return fstat(fd, &facts) ? 0 : facts.st_ino;
}

static uint64_t inode_at(const char *path)
{
    struct stat facts;
    return lstat(path, &facts) ? 0 : facts.st_ino;
}

/* Gives what has to happen at this call. */
static int now(void)
{
    long number = __atomic_add_fetch(&counter, 1, __ATOMIC_SEQ_CST);
    if (!chosen || number < chosen)
        return NOTHING;
    if (what == NO_SPACE || what == IO_ERROR)
        return number < chosen + failing ? what : NOTHING;
    return number == chosen ? what : NOTHING;
}

static int refused(int action)
{
    if (action == NO_SPACE || action == IO_ERROR) {
        errno = action == NO_SPACE ? ENOSPC : EIO;
        return 1;
    }
    if (action == KILL_BEFORE)
        die();
    return 0;
}

static ssize_t written(int fd, const struct iovec *parts, int count, off_t offset, int at_offset)
{
    char path[PATH_MAX];
    if (inside || !name_of(fd, path))
        return at_offset ? syscall(SYS_pwritev, fd, parts, count, offset, 0) : syscall(SYS_writev, fd, parts, count);
    inside = 1;
    size_t size = 0;
    for (int part = 0; part < count; part++)
        size += parts[part].iov_len;
    int action = now();
    ssize_t done = -1;
    if (!refused(action)) {
        struct stat facts;
        fstat(fd, &facts);
        off_t start = at_offset ? offset : (fcntl(fd, F_GETFL) & O_APPEND) ? facts.st_size : lseek(fd, 0, SEEK_CUR);
        if (action == TORN) {
            char *whole = malloc(size + 1), *end = whole;
            for (int part = 0; part < count; part++)
                end = mempcpy(end, parts[part].iov_base, parts[part].iov_len);
            struct iovec half = {whole, size ? (size_t)chosen * 7919 % size : 0};
            if (half.iov_len) {
                syscall(SYS_pwrite64, fd, whole, half.iov_len, start);
                tell('w', facts.st_ino, start, 0, path, 0, &half, 1, half.iov_len);
            }
            die();
        }
        done = at_offset ? syscall(SYS_pwritev, fd, parts, count, offset, 0) : syscall(SYS_writev, fd, parts, count);
        if (done > 0)
            tell('w', facts.st_ino, start, 0, path, 0, parts, count, done);
        if (action == KILL_AFTER)
            die();
    }
    inside = 0;
    return done;
}

ssize_t write(int fd, const void *data, size_t size)
{
    struct iovec one = {(void *)data, size};
    return written(fd, &one, 1, 0, 0);
}
ssize_t writev(int fd, const struct iovec *parts, int count) { return written(fd, parts, count, 0, 0); }
ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset)
{
    struct iovec one = {(void *)data, size};
    return written(fd, &one, 1, offset, 1);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset) { return written(fd, parts, count, offset, 1); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) { return written(fd, parts, count, offset, 1); }
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    return flags ? syscall(SYS_pwritev2, fd, parts, count, offset, 0, flags) : written(fd, parts, count, offset, 1);
}
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    return pwritev64v2(fd, parts, count, offset, flags);
}

/* Calls that happen whole or not at all. */
#define AROUND(known, action_taken, after)                                                                                      \
    if (inside || !(known))                                                                                                     \
        return action_taken;                                                                                                    \
    inside = 1;                                                                                                                 \
    int action = now(), done = -1;                                                                                              \
    if (!refused(action)) {                                                                                                     \
        done = action_taken;                                                                                                    \
        int kept = errno;                                                                                                       \
        if (done >= 0) {                                                                                                        \
            after;                                                                                                              \
        }                                                                                                                       \
        if (action == KILL_AFTER || action == TORN)                                                                             \
            die();                                                                                                              \
        errno = kept;                                                                                                           \
    }                                                                                                                           \
    inside = 0;                                                                                                                 \
    return done;

int fsync(int fd)
{
    char path[PATH_MAX];
    AROUND(name_of(fd, path) || !strcmp(path, root), syscall(SYS_fsync, fd), tell('s', inode_of(fd), 0, 0, path, 0, 0, 0, 0))
}
int fdatasync(int fd)
{
    char path[PATH_MAX];
    AROUND(name_of(fd, path), syscall(SYS_fdatasync, fd), tell('s', inode_of(fd), 0, 0, path, 0, 0, 0, 0))
}
int ftruncate64(int fd, off_t size)
{
    char path[PATH_MAX];
    AROUND(name_of(fd, path), syscall(SYS_ftruncate, fd, size), tell('t', inode_of(fd), size, 0, path, 0, 0, 0, 0))
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int rename(const char *from, const char *to)
{
    char one[PATH_MAX], two[PATH_MAX];
    AROUND(absolute(AT_FDCWD, from, one) & absolute(AT_FDCWD, to, two), syscall(SYS_rename, from, to),
           tell('r', inode_at(to), 0, 0, one, two, 0, 0, 0))
}
int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    char one[PATH_MAX], two[PATH_MAX];
    AROUND(absolute(from_fd, from, one) & absolute(to_fd, to, two), syscall(SYS_renameat, from_fd, from, to_fd, to),
           tell('r', inode_at(two), 0, 0, one, two, 0, 0, 0))
}
int unlink(const char *path)
{
    char one[PATH_MAX];
    AROUND(absolute(AT_FDCWD, path, one), syscall(SYS_unlink, path), tell('u', 0, 0, 0, one, 0, 0, 0, 0))
}
int unlinkat(int fd, const char *path, int flags)
{
    char one[PATH_MAX];
    AROUND(absolute(fd, path, one), syscall(SYS_unlinkat, fd, path, flags), tell('u', 0, 0, 0, one, 0, 0, 0, 0))
}
int mkdir(const char *path, mode_t mode)
{
    char one[PATH_MAX];
    AROUND(absolute(AT_FDCWD, path, one), syscall(SYS_mkdir, path, mode), tell('m', inode_at(path), 0, 0, one, 0, 0, 0, 0))
}
int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    char two[PATH_MAX];
    AROUND(absolute(to_fd, to, two), syscall(SYS_linkat, from_fd, from, to_fd, to, flags),
           tell('l', inode_at(two), 0, 0, two, 0, 0, 0, 0))
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

static int opened(int dirfd, const char *path, int flags, mode_t mode)
{
    char one[PATH_MAX];
    int makes = (flags & (O_CREAT | O_TRUNC)) && (flags & O_TMPFILE) != O_TMPFILE;
    int missing = inside || !makes || !absolute(dirfd, path, one) ? 0 : faccessat(dirfd, path, F_OK, 0) != 0;
    if (inside || !makes || !absolute(dirfd, path, one) || (!missing && !(flags & O_TRUNC)))
        return syscall(SYS_openat, dirfd, path, flags, mode);
    AROUND(1, syscall(SYS_openat, dirfd, path, flags, mode), tell(missing ? 'c' : 't', inode_of(done), 0, 0, one, 0, 0, 0, 0))
}
#define OPEN_MODE                                                                                                               \
    mode_t mode = 0;                                                                                                            \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                                                        \
        va_list rest;                                                                                                           \
        va_start(rest, flags);                                                                                                  \
        mode = va_arg(rest, mode_t);                                                                                            \
        va_end(rest);                                                                                                           \
    }
int open64(const char *path, int flags, ...) { OPEN_MODE return opened(AT_FDCWD, path, flags, mode); }
int open(const char *path, int flags, ...) { OPEN_MODE return opened(AT_FDCWD, path, flags, mode); }
int openat64(int fd, const char *path, int flags, ...) { OPEN_MODE return opened(fd, path, flags, mode); }
int openat(int fd, const char *path, int flags, ...) { OPEN_MODE return opened(fd, path, flags, mode); }
