/* Content by a seed: 32-bit little-endian word i is mix(seed, i). memfd-order.ts computes the same. */
#include <unistd.h>
#include "guest.h"

static uint32_t mix(uint32_t seed, uint32_t index)
{
	uint32_t x = seed + index * 0x9e3779b9u;

	x = (x ^ x >> 16) * 0x21f0aaadu;
	x = (x ^ x >> 15) * 0x735a2d97u;
	return x ^ x >> 15;
}

int fill(int fd, uint32_t seed, uint64_t offset, uint64_t from, uint64_t to)
{
	static uint32_t words[1 << 14];

	while (from < to) {
		uint64_t part = sizeof(words) - from % 4;

		if (part > to - from)
			part = to - from;
		for (uint64_t i = 0; i < (from % 4 + part + 3) / 4; i++)
			words[i] = mix(seed, from / 4 + i);
		ssize_t written = pwrite(fd, (char *)words + from % 4, part, offset + from);

		if (written <= 0)
			return -1;
		from += written;
	}
	return 0;
}
