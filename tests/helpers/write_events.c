/* A library that is loaded before libc and sees what a process asks of the file system below one folder.

   It is dormant until write_events_arm() is called. Each call that changes something below the folder is an event, numbered
   from 1. At a chosen event it kills the process, or lets that call fail, or all growing calls from it on, as a disk that is
   full does; or it writes down all events, with the content of a file whenever it is synced or closed. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT = 0, KILL = 1, FAIL_ONE = 2, FILL = 3, TRACE = 4 };
enum kind { GROWS, CHANGES, REMOVES }; /* needs room; needs none; frees some */

#define REAL(type, name) static __typeof__(type) real; if (!real) real = (__typeof__(type))dlsym(RTLD_NEXT, name)
#define MOST_FILES 65536

static int armed, action, error_number;
static long events, at;
static char root[PATH_MAX], snapshots[PATH_MAX];
static size_t root_length;
static int log_fd = -1;
static long taken;
static unsigned char is_ours[MOST_FILES]; /* files that are open for writing, 2 for those that were written to */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

long write_events_count(void) { return events; }

void write_events_arm(const char *folder, int what, long event, int error, const char *log, const char *copies) {
    strncpy(root, folder, sizeof root - 1);
    root_length = strlen(root);
    action = what; at = event; error_number = error; events = 0;
    if (what == TRACE) {
        strncpy(snapshots, copies, sizeof snapshots - 1);
        log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
        log_fd = fcntl(log_fd, F_DUPFD_CLOEXEC, 900); /* out of the way of numbers that the program counts on */
    }
    armed = 1;
}

/* The absolute form of a path; 1 where it is below the folder. */
static int below(int directory, const char *path, char *absolute) {
    if (!armed || !path) return 0;
    if (path[0] == '/') {
        snprintf(absolute, PATH_MAX, "%s", path);
    } else {
        char base[PATH_MAX];
        if (directory == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return 0;
        } else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
            ssize_t length = readlink(link, base, sizeof base - 1);
            if (length < 0) return 0;
            base[length] = 0;
        }
        if (snprintf(absolute, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) return 0;
    }
    return !strncmp(absolute, root, root_length) && (absolute[root_length] == '/' || !absolute[root_length]);
}

/* 1 where the call is to fail, with errno set. Called with the lock. */
static int happens(enum kind kind) {
    long number = ++events;
    if (action == KILL && number == at) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
    if ((action == FAIL_ONE && number == at && kind != REMOVES) || (action == FILL && number >= at && kind == GROWS)) {
        errno = error_number;
        return 1;
    }
    return 0;
}

static void note(const char *form, ...) {
    if (action != TRACE) return;
    char line[3 * PATH_MAX];
    va_list values;
    va_start(values, form);
    int length = vsnprintf(line, sizeof line, form, values);
    va_end(values);
    REAL(ssize_t (*)(int, const void *, size_t), "write");
    if (real(log_fd, line, length) != length) abort();
}

static void inode(int fd, ino_t *number, off_t *size) {
    struct stat status;
    fstat(fd, &status);
    *number = status.st_ino;
    *size = status.st_size;
}

/* Copy the content of an open file; the number of the copy. */
static long copy(int fd) {
    char name[PATH_MAX + 32], source[64], block[1 << 16];
    static ssize_t (*real_write)(int, const void *, size_t);
    if (!real_write) real_write = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    snprintf(source, sizeof source, "/proc/self/fd/%d", fd);
    snprintf(name, sizeof name, "%s/%ld", snapshots, ++taken);
    REAL(int (*)(const char *, int, ...), "open");
    int in = real(source, O_RDONLY | O_CLOEXEC), out = real(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    ssize_t length;
    while ((length = read(in, block, sizeof block)) > 0)
        if (real_write(out, block, length) != length) abort();
    static int (*real_close)(int);
    if (!real_close) real_close = (int (*)(int))dlsym(RTLD_NEXT, "close");
    real_close(in);
    real_close(out);
    return taken;
}

#define ENTER pthread_mutex_lock(&lock)
#define LEAVE do { int kept_errno = errno; pthread_mutex_unlock(&lock); errno = kept_errno; } while (0)

/* -------- opening -------- */

typedef int (*openat_call)(int, const char *, int, ...);

static int opened(int directory, const char *path, int flags, mode_t mode) {
    REAL(openat_call, "openat64");
    char absolute[PATH_MAX];
    int writes = (flags & O_ACCMODE) != O_RDONLY && (flags & O_TMPFILE) != O_TMPFILE;
    if (!writes || !below(directory, path, absolute)) return real(directory, path, flags, mode);
    ENTER;
    int is_new = access(absolute, F_OK) != 0, cut = !is_new && (flags & O_TRUNC), fd = -1;
    int matters = (is_new && (flags & O_CREAT)) || cut;
    if (!matters || !happens(is_new ? GROWS : CHANGES)) {
        fd = real(directory, path, flags, mode);
        if (fd >= 0 && fd < MOST_FILES) {
            is_ours[fd] = matters ? 2 : 1;
            ino_t number; off_t size;
            inode(fd, &number, &size);
            if (matters) note("%s\t%lu\t%s\n", is_new ? "create" : "cut", (unsigned long)number, absolute);
        }
    }
    LEAVE;
    return fd;
}

#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }
int open(const char *path, int flags, ...) { MODE return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return opened(AT_FDCWD, path, flags, mode); }
int openat(int directory, const char *path, int flags, ...) { MODE return opened(directory, path, flags, mode); }
int openat64(int directory, const char *path, int flags, ...) { MODE return opened(directory, path, flags, mode); }
int __open_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }

/* Streams of C are made over a descriptor that was opened above; what they write is seen when it leaves their buffer. */
static FILE *stream(const char *path, const char *mode) {
    char absolute[PATH_MAX];
    REAL(FILE *(*)(const char *, const char *), "fopen64");
    if (mode[0] == 'r' || !below(AT_FDCWD, path, absolute)) return real(path, mode);
    int fd = opened(AT_FDCWD, path, O_WRONLY | O_CREAT | (mode[0] == 'w' ? O_TRUNC : O_APPEND) | O_CLOEXEC, 0666);
    return fd < 0 ? NULL : fdopen(fd, mode);
}
FILE *fopen(const char *path, const char *mode) { return stream(path, mode); }
FILE *fopen64(const char *path, const char *mode) { return stream(path, mode); }

static int ours(int fd) { return armed && fd >= 0 && fd < MOST_FILES && is_ours[fd]; }

static void written(int fd) {
    ino_t number; off_t size;
    is_ours[fd] = 2;
    inode(fd, &number, &size);
    note("write\t%lu\t%ld\n", (unsigned long)number, (long)size);
}

/* -------- writing: `call` is made where nothing is to fail, and `failed` is what it returns otherwise -------- */

#define WRITING(type, fd, kind, call, failed) \
    if (!ours(fd)) return call; \
    ENTER; \
    type result = failed; \
    if (!happens(kind)) { result = call; written(fd); } \
    LEAVE; \
    return result

ssize_t write(int fd, const void *data, size_t n) {
    REAL(ssize_t (*)(int, const void *, size_t), "write");
    WRITING(ssize_t, fd, GROWS, real(fd, data, n), -1);
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(ssize_t (*)(int, const struct iovec *, int), "writev");
    WRITING(ssize_t, fd, GROWS, real(fd, parts, n), -1);
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t place) {
    REAL(ssize_t (*)(int, const void *, size_t, off_t), "pwrite64");
    WRITING(ssize_t, fd, GROWS, real(fd, data, n, place), -1);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t place) {
    REAL(ssize_t (*)(int, const void *, size_t, off64_t), "pwrite64");
    WRITING(ssize_t, fd, GROWS, real(fd, data, n, place), -1);
}
ssize_t sendfile(int fd, int in, off_t *place, size_t n) {
    REAL(ssize_t (*)(int, int, off_t *, size_t), "sendfile64");
    WRITING(ssize_t, fd, GROWS, real(fd, in, place, n), -1);
}
ssize_t sendfile64(int fd, int in, off64_t *place, size_t n) {
    REAL(ssize_t (*)(int, int, off64_t *, size_t), "sendfile64");
    WRITING(ssize_t, fd, GROWS, real(fd, in, place, n), -1);
}
ssize_t copy_file_range(int in, off64_t *from, int fd, off64_t *to, size_t n, unsigned flags) {
    REAL(ssize_t (*)(int, off64_t *, int, off64_t *, size_t, unsigned), "copy_file_range");
    WRITING(ssize_t, fd, GROWS, real(in, from, fd, to, n, flags), -1);
}
int ftruncate(int fd, off_t size) {
    REAL(int (*)(int, off_t), "ftruncate64");
    WRITING(int, fd, CHANGES, real(fd, size), -1);
}
int ftruncate64(int fd, off64_t size) {
    REAL(int (*)(int, off64_t), "ftruncate64");
    WRITING(int, fd, CHANGES, real(fd, size), -1);
}
int posix_fallocate(int fd, off_t from, off_t n) {
    REAL(int (*)(int, off_t, off_t), "posix_fallocate64");
    WRITING(int, fd, GROWS, real(fd, from, n), error_number);
}
int posix_fallocate64(int fd, off64_t from, off64_t n) {
    REAL(int (*)(int, off64_t, off64_t), "posix_fallocate64");
    WRITING(int, fd, GROWS, real(fd, from, n), error_number);
}
size_t fwrite(const void *data, size_t size, size_t n, FILE *file) {
    REAL(size_t (*)(const void *, size_t, size_t, FILE *), "fwrite");
    int fd = armed ? fileno(file) : -1;
    WRITING(size_t, fd, GROWS, real(data, size, n, file), 0);
}

/* -------- syncing and closing -------- */

static int synced(int fd, int (*real)(int)) {
    char link[64], path[PATH_MAX], absolute[PATH_MAX];
    if (!armed) return real(fd);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    if (!below(AT_FDCWD, path, absolute)) return real(fd);
    ENTER;
    int result = -1;
    if (!happens(CHANGES)) {
        result = real(fd);
        if (action == TRACE) {
            struct stat status;
            fstat(fd, &status);
            long copied = S_ISDIR(status.st_mode) ? 0 : copy(fd);
            note("sync\t%lu\t%ld\t%s\n", (unsigned long)status.st_ino, copied, absolute);
        }
    }
    LEAVE;
    return result;
}
int fsync(int fd) { REAL(int (*)(int), "fsync"); return synced(fd, real); }
int fdatasync(int fd) { REAL(int (*)(int), "fdatasync"); return synced(fd, real); }

static void left(int fd) {
    if (is_ours[fd] == 2 && action == TRACE) {
        ino_t number; off_t size;
        inode(fd, &number, &size);
        note("close\t%lu\t%ld\n", (unsigned long)number, copy(fd));
    }
    is_ours[fd] = 0;
}
int close(int fd) {
    REAL(int (*)(int), "close");
    if (!ours(fd)) return real(fd);
    ENTER;
    left(fd);
    int result = real(fd);
    LEAVE;
    return result;
}
int fclose(FILE *file) {
    REAL(int (*)(FILE *), "fclose");
    int fd = armed ? fileno(file) : -1;
    if (!ours(fd)) return real(file);
    ENTER;
    fflush(file);
    left(fd);
    int result = real(file);
    LEAVE;
    return result;
}

/* -------- names -------- */

#define NAMING(inside, kind, call, line) \
    if (!(inside)) return call; \
    ENTER; \
    int result = -1; \
    if (!happens(kind)) { result = call; if (!result) line; } \
    LEAVE; \
    return result

static ino_t inode_at(const char *path) {
    struct stat status;
    return lstat(path, &status) ? 0 : status.st_ino;
}

static int renamed(int from, const char *old, int to, const char *new, unsigned flags) {
    REAL(int (*)(int, const char *, int, const char *, unsigned), "renameat2");
    char first[PATH_MAX], second[PATH_MAX];
    NAMING(below(from, old, first) & below(to, new, second), CHANGES, real(from, old, to, new, flags),
           note("%s\t%s\t%s\n", flags & RENAME_EXCHANGE ? "exchange" : "rename", first, second));
}
int rename(const char *old, const char *new) { return renamed(AT_FDCWD, old, AT_FDCWD, new, 0); }
int renameat(int from, const char *old, int to, const char *new) { return renamed(from, old, to, new, 0); }
int renameat2(int from, const char *old, int to, const char *new, unsigned flags) { return renamed(from, old, to, new, flags); }
int linkat(int from, const char *old, int to, const char *new, int flags) {
    REAL(int (*)(int, const char *, int, const char *, int), "linkat");
    char first[PATH_MAX], second[PATH_MAX];
    NAMING(below(from, old, first) & below(to, new, second), GROWS, real(from, old, to, new, flags),
           note("link\t%s\t%s\n", first, second));
}
int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }
int unlinkat(int directory, const char *path, int flags) {
    REAL(int (*)(int, const char *, int), "unlinkat");
    char absolute[PATH_MAX];
    NAMING(below(directory, path, absolute), REMOVES, real(directory, path, flags), note("remove\t%s\n", absolute));
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int mkdirat(int directory, const char *path, mode_t mode) {
    REAL(int (*)(int, const char *, mode_t), "mkdirat");
    char absolute[PATH_MAX];
    NAMING(below(directory, path, absolute), GROWS, real(directory, path, mode),
           note("mkdir\t%lu\t%s\n", (unsigned long)inode_at(absolute), absolute));
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
