/*
 * Runs the kernel's own mm/memblock.c, built with the headers of its simulator (tools/testing/memblock), by the lines that
 * it reads: a function's name and its arguments, in hexadecimal, as differential/calls.ts lists them. Each line is
 * answered with a line: what the function returned, whether it warned, and a digest of both region arrays.
 *
 * What is set here instead of by the kernel:
 * - the address space ends at 2^52 as in khorus, and a cache line has 64 bytes as on x86-64;
 * - physical memory is only addresses. The one thing that memblock writes to memory, its own arrays when they grow, gets
 *   memory of this process; clearing what was allocated does nothing;
 * - a panic and a BUG end the call instead of the machine. The next line finds a memblock as after boot.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <linux/kernel.h>
#include <linux/slab.h>
#include <linux/bug.h>
#include <linux/mm.h>
#include <linux/memblock.h>
#include <linux/memory_hotplug.h>
#include <linux/cache.h>
#include "internal.h"

enum ending { LIVES, PANICKED, BUGGED };

static jmp_buf end_of_call;
static int warned;

static void warn_if(int condition)
{
	if (condition)
		warned = 1;
}

/* Memory behind the arrays that memblock_double_array() has moved. */
#define ARRAYS_MAX 64
#define ARRAY_BYTES (1UL << 24)

static struct {
	phys_addr_t address;
	char *memory;
} arrays[ARRAYS_MAX];
static int array_count;

static void *array_memory(phys_addr_t address)
{
	if (array_count == ARRAYS_MAX) {
		fprintf(stderr, "driver: too many arrays\n");
		exit(2);
	}
	void *memory = mmap(NULL, ARRAY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED) {
		perror("driver: mmap");
		exit(2);
	}
	arrays[array_count].address = address;
	arrays[array_count].memory = memory;
	array_count++;
	return memory;
}

static phys_addr_t array_address(const void *pointer)
{
	for (int i = array_count - 1; i >= 0; i--)
		if (arrays[i].memory == pointer)
			return arrays[i].address;
	return 0;
}

static void clear_memory(void *pointer, int value, size_t size)
{
	for (int i = 0; i < array_count; i++)
		if ((char *)pointer >= arrays[i].memory && (char *)pointer < arrays[i].memory + ARRAY_BYTES) {
			memset(pointer, value, size);
			return;
		}
}

bool movable_node_enabled;

bool slab_is_available(void)
{
	return false;
}

void *kmalloc(size_t size, gfp_t gfp)
{
	abort();
}

void kfree(void *pointer)
{
	abort();
}

struct pglist_data *first_online_pgdat(void)
{
	return NULL;
}

struct pglist_data *next_online_pgdat(struct pglist_data *pgdat)
{
	return NULL;
}

void atomic_long_set(atomic_long_t *v, long i)
{
}

#undef PHYS_ADDR_MAX
#define PHYS_ADDR_MAX ((phys_addr_t)1 << 52)
#undef MEMBLOCK_ALLOC_ANYWHERE
#define MEMBLOCK_ALLOC_ANYWHERE PHYS_ADDR_MAX
#undef SMP_CACHE_BYTES
#define SMP_CACHE_BYTES 64
#undef __va
#define __va(address) array_memory(address)
#undef __pa
#define __pa(pointer) array_address(pointer)
#undef BUG_ON
#define BUG_ON(condition) do { if (condition) longjmp(end_of_call, BUGGED); } while (0)
#undef WARN_ON
#define WARN_ON(condition) warn_if(!!(condition))
#define panic(...) longjmp(end_of_call, PANICKED)
#undef pr_info
#define pr_info(...) do { } while (0)
#undef pr_err
#define pr_err(...) do { } while (0)
#undef pr_warn
#define pr_warn(...) do { warned = 1; } while (0)
#undef pr_warn_ratelimited
#define pr_warn_ratelimited(...) do { } while (0)
#define memset(pointer, value, size) clear_memory(pointer, value, size)
#include "memblock.c"
#undef memset

typedef unsigned long long u64_t;

static void boot(unsigned long initial_regions)
{
	struct memblock_type *types[] = { &memblock.memory, &memblock.reserved };
	struct memblock_region *own[] = { memblock_memory_init_regions, memblock_reserved_init_regions };

	for (int i = 0; i < 2; i++) {
		memset(own[i], 0, sizeof(memblock_memory_init_regions));
		types[i]->regions = own[i];
		types[i]->cnt = 0;
		types[i]->max = initial_regions;
		types[i]->total_size = 0;
	}
	for (int i = 0; i < array_count; i++)
		munmap(arrays[i].memory, ARRAY_BYTES);
	array_count = 0;
	memblock.bottom_up = false;
	memblock.current_limit = MEMBLOCK_ALLOC_ANYWHERE;
	memblock_can_resize = 0;
	system_has_some_mirror = false;
	mirrored_kernelcore = false;
	movable_node_enabled = false;
	kho_scratch_only = false;
}

static unsigned int digest[2];

static void digest_begin(void)
{
	digest[0] = 1;
	digest[1] = 2;
}

static void digest_word(unsigned int word)
{
	digest[0] = (digest[0] ^ word) * 0x9e3779b1u;
	digest[0] ^= digest[0] >> 15;
	digest[1] = (digest[1] ^ word) * 0x85ebca77u;
	digest[1] ^= digest[1] >> 13;
}

static void digest_value(u64_t value)
{
	digest_word((unsigned int)value);
	digest_word((unsigned int)(value >> 32));
}

static void digest_arrays(void)
{
	struct memblock_type *types[] = { &memblock.memory, &memblock.reserved };

	digest_begin();
	for (int i = 0; i < 2; i++) {
		digest_value(types[i]->cnt);
		digest_value(types[i]->max);
		digest_value(types[i]->total_size);
		digest_value(array_address(types[i]->regions));
		for (unsigned long r = 0; r < types[i]->cnt; r++) {
			struct memblock_region *region = &types[i]->regions[r];

			digest_value(region->base);
			digest_value(region->size);
			digest_word(region->flags);
			digest_word(region->nid);
		}
	}
}

static void print_arrays(void)
{
	struct memblock_type *types[] = { &memblock.memory, &memblock.reserved };

	for (int i = 0; i < 2; i++) {
		printf("%s(%lx/%lx,%llx,%llx)", types[i]->name, types[i]->cnt, types[i]->max, (u64_t)types[i]->total_size,
		       (u64_t)array_address(types[i]->regions));
		for (unsigned long r = 0; r < types[i]->cnt; r++) {
			struct memblock_region *region = &types[i]->regions[r];

			printf("[%llx+%llx,%x,%d]", (u64_t)region->base, (u64_t)region->size, region->flags, region->nid);
		}
	}
}

static void number(u64_t value)
{
	printf("%llx", value);
}

static void integer(int value)
{
	printf("%d", value);
}

static void address_of(void *pointer)
{
	number((u64_t)pointer);
}

/* An iteration answers with the number of ranges and their digest. */
static unsigned int range_count;

static void ranges_begin(void)
{
	range_count = 0;
	digest_begin();
}

static void range(u64_t start, u64_t end, int nid)
{
	range_count++;
	digest_value(start);
	digest_value(end);
	digest_word(nid);
}

static void ranges_end(void)
{
	printf("%x:%08x%08x", range_count, digest[0], digest[1]);
}

static struct memblock_type *type_of(u64_t index)
{
	return index ? &memblock.reserved : &memblock.memory;
}

/* Prints what the call returns; false if there is no such call. */
static bool call(const char *name, const u64_t *a)
{
	phys_addr_t start, end;
	unsigned long start_pfn, end_pfn;
	int nid, i;
	u64 at;

#define IS(text) (!strcmp(name, text))
#define NOTHING(statement) ({ statement; printf("void"); })

	if (IS("memblock_add"))
		integer(memblock_add(a[0], a[1]));
	else if (IS("memblock_add_node"))
		integer(memblock_add_node(a[0], a[1], a[2], a[3]));
	else if (IS("memblock_remove"))
		integer(memblock_remove(a[0], a[1]));
	else if (IS("memblock_phys_free"))
		integer(memblock_phys_free(a[0], a[1]));
	else if (IS("memblock_reserve"))
		integer(memblock_reserve(a[0], a[1]));
	else if (IS("memblock_reserve_kern"))
		integer(memblock_reserve_kern(a[0], a[1]));
	else if (IS("__memblock_reserve"))
		integer(__memblock_reserve(a[0], a[1], a[2], a[3]));
	else if (IS("memblock_mark_hotplug"))
		integer(memblock_mark_hotplug(a[0], a[1]));
	else if (IS("memblock_clear_hotplug"))
		integer(memblock_clear_hotplug(a[0], a[1]));
	else if (IS("memblock_mark_mirror"))
		integer(memblock_mark_mirror(a[0], a[1]));
	else if (IS("memblock_mark_nomap"))
		integer(memblock_mark_nomap(a[0], a[1]));
	else if (IS("memblock_clear_nomap"))
		integer(memblock_clear_nomap(a[0], a[1]));
	else if (IS("memblock_mark_kho_scratch"))
		integer(memblock_mark_kho_scratch(a[0], a[1]));
	else if (IS("memblock_clear_kho_scratch"))
		integer(memblock_clear_kho_scratch(a[0], a[1]));
	else if (IS("memblock_reserved_mark_noinit"))
		integer(memblock_reserved_mark_noinit(a[0], a[1]));
	else if (IS("memblock_reserved_mark_kern"))
		integer(memblock_reserved_mark_kern(a[0], a[1]));
	else if (IS("memblock_set_node"))
		integer(memblock_set_node(a[0], a[1], type_of(a[2]), a[3]));
	else if (IS("memblock_trim_memory"))
		NOTHING(memblock_trim_memory(a[0]));
	else if (IS("memblock_enforce_memory_limit"))
		NOTHING(memblock_enforce_memory_limit(a[0]));
	else if (IS("memblock_cap_memory_range"))
		NOTHING(memblock_cap_memory_range(a[0], a[1]));
	else if (IS("memblock_mem_limit_remove_map"))
		NOTHING(memblock_mem_limit_remove_map(a[0]));
	else if (IS("memblock_set_current_limit"))
		NOTHING(memblock_set_current_limit(a[0]));
	else if (IS("memblock_get_current_limit"))
		number(memblock_get_current_limit());
	else if (IS("memblock_set_bottom_up"))
		NOTHING(memblock_set_bottom_up(a[0]));
	else if (IS("movable_node"))
		NOTHING(movable_node_enabled = a[0]);
	else if (IS("mirrored_kernelcore"))
		NOTHING(mirrored_kernelcore = a[0]);
	else if (IS("memblock_set_kho_scratch_only"))
		NOTHING(memblock_set_kho_scratch_only());
	else if (IS("memblock_clear_kho_scratch_only"))
		NOTHING(memblock_clear_kho_scratch_only());
	else if (IS("memblock_allow_resize"))
		NOTHING(memblock_allow_resize());
	else if (IS("memblock_phys_alloc"))
		number(memblock_phys_alloc(a[0], a[1]));
	else if (IS("memblock_phys_alloc_range"))
		number(memblock_phys_alloc_range(a[0], a[1], a[2], a[3]));
	else if (IS("memblock_phys_alloc_try_nid"))
		number(memblock_phys_alloc_try_nid(a[0], a[1], a[2]));
	else if (IS("memblock_alloc_range_nid"))
		number(memblock_alloc_range_nid(a[0], a[1], a[2], a[3], a[4], a[5]));
	else if (IS("memblock_alloc_exact_nid_raw"))
		address_of(memblock_alloc_exact_nid_raw(a[0], a[1], a[2], a[3], a[4]));
	else if (IS("memblock_alloc_try_nid_raw"))
		address_of(memblock_alloc_try_nid_raw(a[0], a[1], a[2], a[3], a[4]));
	else if (IS("memblock_alloc_try_nid"))
		address_of(memblock_alloc_try_nid(a[0], a[1], a[2], a[3], a[4]));
	else if (IS("memblock_alloc"))
		address_of(memblock_alloc(a[0], a[1]));
	else if (IS("memblock_alloc_raw"))
		address_of(memblock_alloc_raw(a[0], a[1]));
	else if (IS("memblock_alloc_or_panic"))
		address_of(memblock_alloc_or_panic(a[0], a[1]));
	else if (IS("memblock_alloc_from"))
		address_of(memblock_alloc_from(a[0], a[1], a[2]));
	else if (IS("memblock_alloc_low"))
		address_of(memblock_alloc_low(a[0], a[1]));
	else if (IS("memblock_alloc_node"))
		address_of(memblock_alloc_node(a[0], a[1], a[2]));
	else if (IS("memblock_find_in_range"))
		number(memblock_find_in_range(a[0], a[1], a[2], PAGE_SIZE)); /* as for an array */
	else if (IS("memblock_find_in_range_node"))
		number(memblock_find_in_range_node(a[0], a[1], a[2], a[3], a[4], a[5]));
	else if (IS("memblock_is_memory"))
		integer(memblock_is_memory(a[0]));
	else if (IS("memblock_is_map_memory"))
		integer(memblock_is_map_memory(a[0]));
	else if (IS("memblock_is_kho_scratch_memory"))
		integer(memblock_is_kho_scratch_memory(a[0]));
	else if (IS("memblock_is_reserved"))
		integer(memblock_is_reserved(a[0]));
	else if (IS("memblock_is_region_memory"))
		integer(memblock_is_region_memory(a[0], a[1]));
	else if (IS("memblock_is_region_reserved"))
		integer(memblock_is_region_reserved(a[0], a[1]));
	else if (IS("memblock_overlaps_region"))
		integer(memblock_overlaps_region(type_of(a[0]), a[1], a[2]));
	else if (IS("memblock_search_pfn_nid")) {
		start_pfn = end_pfn = 0;
		nid = memblock_search_pfn_nid(a[0], &start_pfn, &end_pfn);
		printf("%d,%lx,%lx", nid, start_pfn, end_pfn);
	} else if (IS("memblock_validate_numa_coverage"))
		integer(memblock_validate_numa_coverage(a[0]));
	else if (IS("memblock_phys_mem_size"))
		number(memblock_phys_mem_size());
	else if (IS("memblock_reserved_size"))
		number(memblock_reserved_size());
	else if (IS("memblock_reserved_kern_size"))
		number(memblock_reserved_kern_size(a[0], a[1]));
	else if (IS("memblock_estimated_nr_free_pages")) {
		/* Where it wraps there is nothing to compare. */
		bool wraps = memblock_reserved_kern_size(MEMBLOCK_ALLOC_ANYWHERE, NUMA_NO_NODE) > memblock_phys_mem_size();

		number(wraps ? 0 : memblock_estimated_nr_free_pages());
	} else if (IS("memblock_start_of_DRAM"))
		number(memblock_start_of_DRAM());
	else if (IS("memblock_end_of_DRAM"))
		/* Without memory it reads what lies before the array. */
		number(memblock.memory.cnt ? memblock_end_of_DRAM() : 0);
	else if (IS("for_each_free_mem_range")) {
		ranges_begin();
		for_each_free_mem_range(at, (int)a[0], a[1], &start, &end, &nid)
			range(start, end, nid);
		ranges_end();
	} else if (IS("for_each_free_mem_range_reverse")) {
		ranges_begin();
		for_each_free_mem_range_reverse(at, (int)a[0], a[1], &start, &end, &nid)
			range(start, end, nid);
		ranges_end();
	} else if (IS("for_each_mem_range")) {
		ranges_begin();
		for_each_mem_range(at, &start, &end)
			range(start, end, 0);
		ranges_end();
	} else if (IS("for_each_mem_range_rev")) {
		ranges_begin();
		for_each_mem_range_rev(at, &start, &end)
			range(start, end, 0);
		ranges_end();
	} else if (IS("for_each_reserved_mem_range")) {
		ranges_begin();
		for_each_reserved_mem_range(at, &start, &end)
			range(start, end, 0);
		ranges_end();
	} else if (IS("for_each_mem_pfn_range")) {
		ranges_begin();
		for_each_mem_pfn_range(i, (int)a[0], &start_pfn, &end_pfn, &nid)
			range(start_pfn, end_pfn, nid);
		ranges_end();
	} else if (IS("arrays"))
		print_arrays();
	else
		return false;
	return true;
}

int main(void)
{
	char line[1024];

	boot(128);
	while (fgets(line, sizeof(line), stdin)) {
		u64_t arguments[8] = { 0 };
		const char *name = strtok(line, " \n");
		const char *word;
		int count = 0;
		enum ending ending;

		if (!name)
			continue;
		while (count < 8 && (word = strtok(NULL, " \n")))
			arguments[count++] = strtoull(word, NULL, 16);
		if (!strcmp(name, "boot")) {
			boot(arguments[0]);
			continue;
		}
		warned = 0;
		ending = setjmp(end_of_call);
		if (ending == LIVES) {
			if (!call(name, arguments)) {
				fprintf(stderr, "driver: no call %s\n", name);
				return 2;
			}
			digest_arrays();
			printf(" %d %08x%08x\n", warned, digest[0], digest[1]);
		} else {
			digest_arrays();
			if (ending == PANICKED)
				printf("panic %08x%08x\n", digest[0], digest[1]);
			else
				printf("bug\n");
			boot(128);
		}
	}
	return 0;
}
