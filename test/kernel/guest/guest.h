/* What the parts of the guest's init have from one another. */
#ifndef GUEST_H
#define GUEST_H

#include <stddef.h>
#include <stdint.h>

#define PAGE_SIZE 4096
#define KHO_DEBUGFS "/sys/kernel/debug/kho/"

/* say.c */

/* From now on lines go to the kernel's log; until then to standard error. */
void say_to_kernel_log(void);
/* One line, without its end. */
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);
#define fail(format, ...) say("khorus-guest: error " format, ##__VA_ARGS__)

/* file.c */

/* The whole file with a zero after it, or NULL. */
char *read_file(const char *path, size_t *length);
/* 0, or -1 with errno. */
int write_file(const char *path, const char *text);

/* sha256.c: of `size` bytes of a file from `offset` on; 0, or -1 with errno if there are fewer or they cannot be read. */
int sha256_file(int fd, uint64_t offset, uint64_t size, char hex[65]);

/* content.c: writes bytes [from, to) of the content of a seed, the content beginning at `offset` of the file; 0 or -1. */
int fill(int fd, uint32_t seed, uint64_t offset, uint64_t from, uint64_t to);

/* areas.c */

/* Says the digests of the revived reserve_mem areas. */
void show_areas(void);
/* A predecessor's: the first area gets content of seed 1, the next of seed 2, … */
void fill_areas(void);

/* sessions.c: goes through /khorus-sessions. A predecessor's sessions stay open: closing one would undo it. */
void make_sessions(void);
void retrieve_sessions(void);

#endif
