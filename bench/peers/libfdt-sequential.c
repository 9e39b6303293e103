/*
 * A peer: libfdt's sequential writer. Reads jobs from stdin, one a line:
 *
 *     INSTANCES NODES PROPERTIES NAMES DEDUP [FILE]
 *
 * and answers each with `NANOSECONDS BYTES`: from fdt_create() to fdt_finish(). The tree is that of bench/load.ts. DEDUP 0
 * is FDT_CREATE_FLAG_NO_NAME_DEDUP. Names are made and memory is touched before the clock starts. With FILE the blob is
 * written there.
 */
#include <libfdt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NAME_SIZE 32

static void must(int error)
{
	if (error == 0)
		return;
	fprintf(stderr, "libfdt: %s\n", fdt_strerror(error));
	exit(1);
}

static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* `count` names in one block, NAME_SIZE bytes each. */
static char *make_names(const char *prefix, int count)
{
	char *names = malloc((size_t)count * NAME_SIZE + 1);

	for (int index = 0; index < count; index++)
		snprintf(names + (size_t)index * NAME_SIZE, NAME_SIZE, "%s%d", prefix, index);
	return names;
}

int main(void)
{
	int instances, nodes, properties, names, dedup;
	char line[4096], file[4096];
	char *memory = NULL;
	size_t size = 0;

	while (fgets(line, sizeof line, stdin)) {
		int fields = sscanf(line, "%d %d %d %d %d %4095s", &instances, &nodes, &properties, &names, &dedup, file);

		if (fields < 5)
			return 2;
		char *instance_names = make_names("load", instances);
		char *node_names = make_names("node", nodes);
		char *property_names = make_names("property-", names);
		/* fdt_create() clears all of its buffer, so it is no larger than needed. */
		size_t wanted = (size_t)instances * nodes * (properties * (dedup ? 20 : 34) + 24) + instances * 32 +
				(size_t)names * NAME_SIZE + 4096;

		if (wanted > size) {
			free(memory);
			memory = malloc(wanted);
			size = wanted;
			memset(memory, 1, size);
		}
		long long start = now();

		must(fdt_create_with_flags(memory, wanted, dedup ? 0 : FDT_CREATE_FLAG_NO_NAME_DEDUP));
		must(fdt_finish_reservemap(memory));
		must(fdt_begin_node(memory, ""));
		for (int instance = 0; instance < instances; instance++) {
			must(fdt_begin_node(memory, instance_names + (size_t)instance * NAME_SIZE));
			for (int node = 0; node < nodes; node++) {
				must(fdt_begin_node(memory, node_names + (size_t)node * NAME_SIZE));
				for (int property = 0; property < properties; property++) {
					uint64_t value = instance * 1000000LL + node * 16LL + property;
					const char *name = property_names + (size_t)((node + property) % names) * NAME_SIZE;

					must(fdt_property(memory, name, &value, sizeof value));
				}
				must(fdt_end_node(memory));
			}
			must(fdt_end_node(memory));
		}
		must(fdt_end_node(memory));
		must(fdt_finish(memory));
		long long end = now();

		if (fields == 6) {
			FILE *out = fopen(file, "wb");

			if (!out || fwrite(memory, 1, fdt_totalsize(memory), out) != fdt_totalsize(memory) || fclose(out))
				return 1;
		}
		printf("%lld %u\n", end - start, fdt_totalsize(memory));
		fflush(stdout);
		free(instance_names);
		free(node_names);
		free(property_names);
	}
	return 0;
}
