/*
 * What the load generators (load.c, raw.c) share: messages, clocks, and what their blocks hold, so that each finds what the
 * other wrote. PROGRAM is the name that messages begin with.
 */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define SECTOR 512

enum operation { OP_READ, OP_WRITE, OP_FILL, OP_CHECK };

static uint64_t seed = 1;

static void fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fputs(PROGRAM ": ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The content of the eight bytes at a position: it tells where they belong, and which run wrote them. */
static uint64_t word_at(uint64_t position)
{
    uint64_t x = position + seed * 0x9e3779b97f4a7c15u;

    x = (x ^ (x >> 31)) * 0xbf58476d1ce4e5b9u;
    return x ^ (x >> 29);
}

/* User and system time of all threads of a process, in seconds (proc(5)). */
static double processor_seconds(int pid)
{
    char path[64], line[1024];
    const char *after;
    unsigned long user, system;
    size_t length;
    FILE *file;

    if (pid == 0) return 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    file = fopen(path, "r");
    if (file == NULL) return 0;
    length = fread(line, 1, sizeof line - 1, file);
    line[length] = 0;
    fclose(file);
    after = strrchr(line, ')');
    if (after == NULL ||
        sscanf(after + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        return 0;
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static double own_seconds(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static uint64_t number(const char *text)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);

    if (*text == 0 || *end != 0) fail("%s is not a number", text);
    return value;
}
