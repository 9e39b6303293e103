/*
 * The layouts of LUO, memfd and kho_vmalloc as a C compiler lays them out: declared here from their documented fields,
 * filled with fixed numbers and written to standard output one after the other. layouts.test.ts compares our encoders.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct vmalloc_descriptor {
	uint64_t first;
	unsigned int total_pages;
	unsigned short flags;
	unsigned short order;
};
struct vmalloc_chunk {
	uint64_t next;
	uint64_t pieces[511];
};
struct block_header {
	uint64_t next;
	uint64_t count;
} __attribute__((packed));
struct luo {
	char compatible[8];
	uint64_t number;
	uint64_t sessions;
	uint64_t flbs;
} __attribute__((packed));
struct session {
	char name[64];
	uint64_t files;
	uint64_t count;
} __attribute__((packed));
struct file {
	char compatible[48];
	uint64_t data;
	uint64_t token;
} __attribute__((packed));
struct flb {
	char name[48];
	uint64_t data;
	uint64_t count;
} __attribute__((packed));
struct flb_page {
	uint64_t pages;
	uint64_t count;
	struct flb flbs[63];
	char unused[48];
} __attribute__((packed));
struct memfd {
	uint64_t pos;
	uint64_t size;
	uint32_t seals;
	uint32_t flags;
	uint64_t folio_count;
	struct vmalloc_descriptor folios;
} __attribute__((packed));
struct folio {
	uint64_t pfn : 52;
	uint64_t flags : 12;
	uint64_t index;
} __attribute__((packed));

static void put(const void *bytes, size_t size)
{
	fwrite(bytes, 1, size, stdout);
}

int main(void)
{
	struct vmalloc_descriptor descriptor = { 0x123456789000, 0x89abcdef, 3, 9 };
	struct vmalloc_chunk chunk = { 0x7000, { 0x1000, 0x23456789a000 } };
	struct block_header header = { 0xfedcba987000, 2 };
	struct luo luo = { "luo-v5", 0x8877665544332211, 0x2000, 0x3000 };
	struct session session = { "", 0x4000, 65 };
	struct file file = { "memfd-v2", 0x5000, 0xffeeddccbbaa9988 };
	struct flb_page page = { 1, 2, { { "a", 0xfeedf00dcafebee0, 3 }, { "", 2, 4 } } };
	struct memfd memfd = { 0x0102030405060708, 0x112233445566, 0x3f, 0, 7, { 0x6000, 1, 1, 0 } };
	struct folio folio = { 0x123456789a, 3, 0xabcdef01 };

	memset(session.name, 's', 63);
	memset(page.flbs[1].name, 'b', 47);
	put(&descriptor, sizeof(descriptor));
	put(&chunk, sizeof(chunk));
	put(&header, sizeof(header));
	put(&luo, sizeof(luo));
	put(&session, sizeof(session));
	put(&file, sizeof(file));
	put(&page, sizeof(page));
	put(&memfd, sizeof(memfd));
	put(&folio, sizeof(folio));
	return 0;
}
