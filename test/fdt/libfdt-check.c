/*
 * What libfdt makes of a blob, and a blob that libfdt makes. The lines between it and the tests, in the order of the blob:
 *
 *   reserve <TAB> address <TAB> size      both hexadecimal
 *   /path                                 a node
 *   /path <TAB> name <TAB> hex            a property of the node above
 *
 * libfdt-check dump  < blob  > lines
 * libfdt-check build < lines > blob
 *
 * Exit status 1 with libfdt's error on standard error.
 */
#include <libfdt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PATH 65536
#define MAX_DEPTH 64

static void check(const char *what, int err)
{
	if (err >= 0)
		return;
	fprintf(stderr, "%s: %s\n", what, fdt_strerror(err));
	exit(1);
}

static char *slurp(size_t *size)
{
	size_t room = 1 << 16;
	char *data = malloc(room + 1);
	size_t got;

	*size = 0;
	while (data && (got = fread(data + *size, 1, room - *size, stdin)) > 0) {
		*size += got;
		if (*size == room)
			data = realloc(data, (room *= 2) + 1);
	}
	if (!data)
		exit(2);
	data[*size] = 0;
	return data;
}

static void dump(void)
{
	static char path[MAX_PATH];
	size_t length[MAX_DEPTH + 2] = { 0 };
	size_t size;
	char *blob = slurp(&size);
	int node, property, depth = 0;

	check("fdt_check_full", fdt_check_full(blob, size));
	for (int i = 0; i < fdt_num_mem_rsv(blob); i++) {
		uint64_t address, bytes;

		check("fdt_get_mem_rsv", fdt_get_mem_rsv(blob, i, &address, &bytes));
		printf("reserve\t%llx\t%llx\n", (unsigned long long)address, (unsigned long long)bytes);
	}
	for (node = 0; node >= 0 && depth >= 0; node = fdt_next_node(blob, node, &depth)) {
		int len;
		const char *name = fdt_get_name(blob, node, &len);

		check("fdt_get_name", len);
		if (depth > MAX_DEPTH || (depth && length[depth - 1] + len + 2 > MAX_PATH))
			exit(2);
		if (depth)
			length[depth] = length[depth - 1] + sprintf(path + length[depth - 1], "/%s", name);
		else
			length[0] = 0;
		path[length[depth]] = 0;
		printf("%s\n", depth ? path : "/");
		fdt_for_each_property_offset(property, blob, node) {
			const char *key;
			const unsigned char *value = fdt_getprop_by_offset(blob, property, &key, &len);

			check("fdt_getprop_by_offset", value ? 0 : len);
			printf("%s\t%s\t", depth ? path : "/", key);
			for (int i = 0; i < len; i++)
				printf("%02x", value[i]);
			printf("\n");
		}
	}
}

static int depth_of(const char *path)
{
	int depth = 0;

	if (!path[1])
		return 0;
	for (; *path; path++)
		depth += *path == '/';
	return depth;
}

static int digit(char c)
{
	return c <= '9' ? c - '0' : c - 'a' + 10;
}

static void build(void)
{
	size_t size;
	char *lines = slurp(&size);
	int room = 4096 + 4 * (int)size;
	char *blob = malloc(room);
	int open = -1, in_map = 1;

	if (!blob)
		exit(2);
	check("fdt_create", fdt_create(blob, room));
	for (char *line = strtok(lines, "\n"); line; line = strtok(NULL, "\n")) {
		char *name = strchr(line, '\t');
		char *value = name ? strchr(name + 1, '\t') : NULL;

		if (name)
			*name++ = 0;
		if (value)
			*value++ = 0;
		if (in_map && !strcmp(line, "reserve")) {
			check("fdt_add_reservemap_entry",
			      fdt_add_reservemap_entry(blob, strtoull(name, NULL, 16), strtoull(value, NULL, 16)));
			continue;
		}
		if (in_map) {
			check("fdt_finish_reservemap", fdt_finish_reservemap(blob));
			in_map = 0;
		}
		if (value) {
			int len = strlen(value) / 2;
			void *to;

			check("fdt_property_placeholder", fdt_property_placeholder(blob, name, len, &to));
			for (int i = 0; i < len; i++)
				((unsigned char *)to)[i] = digit(value[2 * i]) << 4 | digit(value[2 * i + 1]);
			continue;
		}
		for (int depth = depth_of(line); open >= depth; open--)
			check("fdt_end_node", fdt_end_node(blob));
		check("fdt_begin_node", fdt_begin_node(blob, strrchr(line, '/') + 1));
		open++;
	}
	for (; open >= 0; open--)
		check("fdt_end_node", fdt_end_node(blob));
	check("fdt_finish", fdt_finish(blob));
	fwrite(blob, 1, fdt_totalsize(blob), stdout);
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "dump"))
		dump();
	else if (argc == 2 && !strcmp(argv[1], "build"))
		build();
	else
		return 2;
	return 0;
}
