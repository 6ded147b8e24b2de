/* Stands between a process and the system, and lets one call fail.
 *
 * Loaded by LD_PRELOAD: writes, syncs, truncations, and names that are made, changed and removed. (`strace` counts for each
 * thread by itself, so it cannot say "the n-th call"; nor can it tear a write.) It counts the calls that change what lies under the folder LIMNION_FAULT_ROOT, in all threads
 * together, and does to the call number LIMNION_FAULT_AT what LIMNION_FAULT says:
 *
 *   count   nothing; the number of calls is written to the file LIMNION_FAULT_LOG when the process exits
 *   kill    the process is killed before the call
 *   tear    half of the call's bytes are written, and the process is killed; as kill, where there are no bytes
 *   eio     the call fails with EIO, once            eios    it and every later one of its kind does
 *   full    it fails with ENOSPC, and so does every later write, until the file LIMNION_FAULT_LOG is removed
 *   short   half of the bytes are written, and the call says so
 *   fullsync, eiosync: as full and eio, where only calls that sync are counted
 *   trace   nothing; every call that succeeds is written to LIMNION_FAULT_LOG, in their order, and what goes to stdout too
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum kind { WRITE, SYNC, NAME };

static atomic_long calls;
static long target;
static const char *root, *action, *log_path;
static int only_syncs, trace = -1;
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void) {
    root = getenv("LIMNION_FAULT_ROOT");
    action = getenv("LIMNION_FAULT");
    log_path = getenv("LIMNION_FAULT_LOG");
    target = getenv("LIMNION_FAULT_AT") ? atol(getenv("LIMNION_FAULT_AT")) : 0;
    if (action && !strcmp(action, "trace"))
        trace = REAL(open)(log_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (action && strlen(action) > 4 && !strcmp(action + strlen(action) - 4, "sync")) only_syncs = 1;
}

__attribute__((destructor)) static void end(void) {
    if (!action || strncmp(action, "count", 5) || !log_path) return;
    FILE *log = fopen(log_path, "w");
    if (log) { fprintf(log, "%ld", atomic_load(&calls)); fclose(log); }
}

static int inside(const char *path) {
    return root && action && !strncmp(path, root, strlen(root)) && !strstr(path, "-shm");
}

static int path_of(int file, char path[4096]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, 4095);
    if (length <= 0) return 0;
    path[length] = 0;
    return 1;
}

static int inside_file(int file) {
    char path[4096];
    return root && action && path_of(file, path) && inside(path);
}

/* A line "what TAB path TAB number TAB length", and so many bytes. */
static void note(char what, const char *path, long long number, const void *bytes, size_t length) {
    char line[8600];
    int size = snprintf(line, sizeof line, "%c\t%s\t%lld\t%zu\n", what, path, number, length);
    if (REAL(write)(trace, line, size) != size || REAL(write)(trace, bytes, length) != (ssize_t)length) abort();
}

/* Runs a call and notes it, as one step. */
#define TRACED(call, ok, noting) \
    if (trace >= 0) { \
        pthread_mutex_lock(&order); \
        __typeof__(call) done = call; \
        int error = errno; \
        if (ok) { noting; } \
        errno = error; \
        pthread_mutex_unlock(&order); \
        return done; \
    }
#define NOTED_FILE(what, number, bytes, length) \
    char path[4096]; if (path_of(file, path) && inside(path)) note(what, path, number, bytes, length)

enum fate { PASS, HALF_AND_DIE, HALF, FAIL };

static int is(const char *name) { return !strncmp(action, name, strlen(name)); }

static enum fate fate(enum kind kind) {
    if (only_syncs && kind != SYNC) return PASS;
    long call = atomic_fetch_add(&calls, 1) + 1;
    if (is("count") || call < target) return PASS;
    if (!strcmp(action, "eios")) { errno = EIO; return FAIL; }
    if (is("full")) {
        if ((kind == SYNC && !only_syncs) || access(log_path, F_OK)) return PASS;
        errno = ENOSPC;
        return FAIL;
    }
    if (call != target) return PASS;
    if (is("kill")) kill(getpid(), SIGKILL);
    if (is("tear")) { if (kind == WRITE) return HALF_AND_DIE; kill(getpid(), SIGKILL); }
    if (is("short")) return kind == WRITE ? HALF : PASS;
    errno = EIO;
    return FAIL;
}

#define WRITES(call, half) \
    switch (inside_file(file) ? fate(WRITE) : PASS) { \
    case FAIL: return -1; \
    case HALF: return count > 1 ? half : call; \
    case HALF_AND_DIE: if (count > 1) half; kill(getpid(), SIGKILL); return -1; \
    default: return call; }

ssize_t write(int file, const void *bytes, size_t count) {
    TRACED(REAL(write)(file, bytes, count), done > 0,
        if (file == 1) note('A', "", 0, bytes, done);
        else { NOTED_FILE('W', (long long)lseek(file, 0, SEEK_CUR) - done, bytes, done); })
    WRITES(REAL(write)(file, bytes, count), REAL(write)(file, bytes, count / 2))
}
ssize_t pwrite(int file, const void *bytes, size_t count, off_t at) {
    TRACED(REAL(pwrite)(file, bytes, count, at), done > 0, NOTED_FILE('W', at, bytes, done))
    WRITES(REAL(pwrite)(file, bytes, count, at), REAL(pwrite)(file, bytes, count / 2, at))
}
ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at) {
    TRACED(REAL(pwrite64)(file, bytes, count, at), done > 0, NOTED_FILE('W', at, bytes, done))
    WRITES(REAL(pwrite64)(file, bytes, count, at), REAL(pwrite64)(file, bytes, count / 2, at))
}

#define OTHER(within, kind, call) \
    if (within && fate(kind) == FAIL) return -1; \
    return call;

int fsync(int file) {
    TRACED(REAL(fsync)(file), !done, NOTED_FILE('S', 0, "", 0))
    OTHER(inside_file(file), SYNC, REAL(fsync)(file))
}
int fdatasync(int file) {
    TRACED(REAL(fdatasync)(file), !done, NOTED_FILE('S', 0, "", 0))
    OTHER(inside_file(file), SYNC, REAL(fdatasync)(file))
}
int ftruncate(int file, off_t length) {
    TRACED(REAL(ftruncate)(file, length), !done, NOTED_FILE('T', length, "", 0))
    OTHER(inside_file(file), NAME, REAL(ftruncate)(file, length))
}
int ftruncate64(int file, off64_t length) {
    TRACED(REAL(ftruncate64)(file, length), !done, NOTED_FILE('T', length, "", 0))
    OTHER(inside_file(file), NAME, REAL(ftruncate64)(file, length))
}
int unlink(const char *path) {
    TRACED(REAL(unlink)(path), !done, if (inside(path)) note('U', path, 0, "", 0))
    OTHER(inside(path), NAME, REAL(unlink)(path))
}
int rename(const char *from, const char *to) {
    TRACED(REAL(rename)(from, to), !done, if (inside(from)) note('R', from, 0, to, strlen(to)))
    OTHER(inside(from), NAME, REAL(rename)(from, to))
}
int mkdir(const char *path, mode_t mode) {
    TRACED(REAL(mkdir)(path, mode), !done, if (inside(path)) note('D', path, 0, "", 0))
    OTHER(inside(path), NAME, REAL(mkdir)(path, mode))
}
int rmdir(const char *path) {
    TRACED(REAL(rmdir)(path), !done, if (inside(path)) note('U', path, 0, "", 0))
    OTHER(inside(path), NAME, REAL(rmdir)(path))
}

static mode_t mode_of(int flags, va_list rest) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
}
#define OPENS(name, path, call) \
    va_list rest; va_start(rest, flags); mode_t mode = mode_of(flags, rest); va_end(rest); \
    int is_new = (flags & O_CREAT) && inside(path) && access(path, F_OK); \
    TRACED(call, done >= 0, \
        if (is_new) note('N', path, 0, "", 0); \
        if ((flags & O_TRUNC) && inside(path)) note('T', path, 0, "", 0)) \
    OTHER((flags & O_CREAT) && inside(path) && access(path, F_OK), NAME, call)

int open(const char *path, int flags, ...) { OPENS(open, path, REAL(open)(path, flags, mode)) }
int open64(const char *path, int flags, ...) { OPENS(open64, path, REAL(open64)(path, flags, mode)) }
int openat(int folder, const char *path, int flags, ...) {
    OPENS(openat, path, REAL(openat)(folder, path, flags, mode))
}
int openat64(int folder, const char *path, int flags, ...) {
    OPENS(openat64, path, REAL(openat64)(folder, path, flags, mode))
}
