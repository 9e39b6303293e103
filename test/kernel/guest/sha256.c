/* SHA-256 (FIPS 180-4). */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "guest.h"

struct sha256 {
	uint32_t state[8];
	uint64_t bytes;
	uint8_t block[64];
};

static const uint32_t round_constants[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate_right(uint32_t x, int n)
{
	return x >> n | x << (32 - n);
}

static void sha256_block(struct sha256 *hash)
{
	uint32_t w[64], s[8];

	for (int i = 0; i < 16; i++)
		w[i] = (uint32_t)hash->block[4 * i] << 24 | hash->block[4 * i + 1] << 16 | hash->block[4 * i + 2] << 8 |
		       hash->block[4 * i + 3];
	for (int i = 16; i < 64; i++) {
		uint32_t s0 = rotate_right(w[i - 15], 7) ^ rotate_right(w[i - 15], 18) ^ w[i - 15] >> 3;
		uint32_t s1 = rotate_right(w[i - 2], 17) ^ rotate_right(w[i - 2], 19) ^ w[i - 2] >> 10;

		w[i] = w[i - 16] + s0 + w[i - 7] + s1;
	}
	memcpy(s, hash->state, sizeof(s));
	for (int i = 0; i < 64; i++) {
		uint32_t s1 = rotate_right(s[4], 6) ^ rotate_right(s[4], 11) ^ rotate_right(s[4], 25);
		uint32_t t1 = s[7] + s1 + ((s[4] & s[5]) ^ (~s[4] & s[6])) + round_constants[i] + w[i];
		uint32_t s0 = rotate_right(s[0], 2) ^ rotate_right(s[0], 13) ^ rotate_right(s[0], 22);
		uint32_t t2 = s0 + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));

		memmove(s + 1, s, 7 * sizeof(*s));
		s[4] += t1;
		s[0] = t1 + t2;
	}
	for (int i = 0; i < 8; i++)
		hash->state[i] += s[i];
}

static void sha256_start(struct sha256 *hash)
{
	static const uint32_t initial[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
					     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };

	memcpy(hash->state, initial, sizeof(initial));
	hash->bytes = 0;
}

static void sha256_add(struct sha256 *hash, const uint8_t *data, size_t length)
{
	while (length > 0) {
		size_t at = hash->bytes % 64;
		size_t part = 64 - at < length ? 64 - at : length;

		memcpy(hash->block + at, data, part);
		hash->bytes += part;
		data += part;
		length -= part;
		if (at + part == 64)
			sha256_block(hash);
	}
}

static void sha256_end(struct sha256 *hash, char hex[65])
{
	static const uint8_t padding[64] = { 0x80 };
	uint64_t bits = hash->bytes * 8;
	uint8_t length[8];

	for (int i = 0; i < 8; i++)
		length[i] = bits >> (56 - 8 * i);
	sha256_add(hash, padding, 1 + (119 - hash->bytes % 64) % 64);
	sha256_add(hash, length, 8);
	for (int i = 0; i < 8; i++)
		sprintf(hex + 8 * i, "%08x", hash->state[i]);
}

int sha256_file(int fd, uint64_t offset, uint64_t size, char hex[65])
{
	static uint8_t buffer[1 << 16];
	struct sha256 hash;

	sha256_start(&hash);
	while (size > 0) {
		ssize_t got = pread(fd, buffer, size < sizeof(buffer) ? size : sizeof(buffer), offset);

		if (got == 0)
			errno = ENODATA;
		if (got <= 0)
			return -1;
		sha256_add(&hash, buffer, got);
		offset += got;
		size -= got;
	}
	sha256_end(&hash, hex);
	return 0;
}

