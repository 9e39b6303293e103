/* The areas of reserve_mem=, found in the sub-FDT "memblock", their bytes through /dev/mem. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <unistd.h>
#include "guest.h"

typedef void area_action(int memory, const char *name, uint64_t start, uint64_t size);

static uint32_t big_endian(const uint8_t *bytes)
{
	return (uint32_t)bytes[0] << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3];
}

/*
 * Calls `action` for each area of a sub-FDT "memblock": a node with properties start and size (native u64). The kernel keeps
 * its page, so that `in` still says what was handed over. Nothing happens where there is none.
 */
static void for_each_area(const char *path, area_action *action)
{
	size_t length = 0, at;
	uint8_t *fdt = (uint8_t *)read_file(path, &length);
	int memory = open("/dev/mem", O_RDWR | O_CLOEXEC);
	const char *node = "";
	uint64_t start = 0, size = 0;

	if (!fdt)
		return;
	if (memory < 0)
		return fail("/dev/mem cannot be opened: %m");
	if (length < 40 || big_endian(fdt) != 0xd00dfeed)
		return fail("%s is no FDT", path);
	const char *strings = (char *)fdt + big_endian(fdt + 12);

	for (at = big_endian(fdt + 8); at + 4 <= length;) {
		uint32_t token = big_endian(fdt + at);

		at += 4;
		if (token == 1) { /* node begins */
			node = (char *)fdt + at;
			at += (strlen(node) + 4) & ~3u;
		} else if (token == 2) { /* node ends */
			if (*node)
				action(memory, node, start, size);
			node = "";
		} else if (token == 3 && at + 8 <= length) { /* property */
			uint32_t bytes = big_endian(fdt + at);
			const char *name = strings + big_endian(fdt + at + 4);

			at += 8;
			if (bytes == 8 && at + 8 <= length && !strcmp(name, "start"))
				memcpy(&start, fdt + at, 8);
			if (bytes == 8 && at + 8 <= length && !strcmp(name, "size"))
				memcpy(&size, fdt + at, 8);
			at += (bytes + 3) & ~3u;
		} else if (token == 9) { /* the end */
			close(memory);
			return free(fdt);
		}
	}
	fail("%s is cut short", path);
}

static void fill_area(int memory, const char *name, uint64_t start, uint64_t size)
{
	static uint32_t seed;

	if (fill(memory, ++seed, start, 0, size))
		fail("reserve_mem %s at 0x%llx cannot be written: %m", name, (unsigned long long)start);
}

/* Whether this kernel's log says that it revived the area. */
static int is_revived(const char *name)
{
	static char *log;
	char message[128];

	if (!log) {
		int size = klogctl(10 /* size of the buffer */, NULL, 0);

		log = calloc(1, size + 1);
		klogctl(3 /* read all */, log, size);
	}
	snprintf(message, sizeof(message), "Revived memory reservation '%s' from KHO", name);
	return strstr(log, message) != NULL;
}

static void hash_area(int memory, const char *name, uint64_t start, uint64_t size)
{
	char hex[65];

	if (!is_revived(name))
		say("khorus-info: not-revived %s", name);
	else if (sha256_file(memory, start, size / PAGE_SIZE * PAGE_SIZE, hex))
		fail("reserve_mem %s at 0x%llx cannot be read: %m", name, (unsigned long long)start);
	else
		say("khorus-guest: reserve_mem %s %llu %s", name, (unsigned long long)size, hex);
}

void show_areas(void)
{
	for_each_area(KHO_DEBUGFS "in/sub_fdts/memblock", hash_area);
}

void fill_areas(void)
{
	for_each_area(KHO_DEBUGFS "out/sub_fdts/memblock", fill_area);
}
