#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "guest.h"

char *read_file(const char *path, size_t *length)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t room = 1 << 14, used = 0;
	char *bytes;

	if (fd < 0)
		return NULL;
	bytes = malloc(room);
	for (;;) {
		if (used + 1 == room)
			bytes = realloc(bytes, room *= 2);
		ssize_t got = read(fd, bytes + used, room - used - 1);

		if (got <= 0)
			break;
		used += got;
	}
	close(fd);
	bytes[used] = 0;
	if (length)
		*length = used;
	return bytes;
}

int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	ssize_t written = write(fd, text, strlen(text));

	close(fd);
	return written < 0 ? -1 : 0;
}
