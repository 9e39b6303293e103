/* The user side of the Live Update Orchestrator (7.2: include/uapi/linux/liveupdate.h), and the memfds that go through it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "guest.h"

#define LIVEUPDATE_CREATE_SESSION _IO(0xba, 0x00)
#define LIVEUPDATE_RETRIEVE_SESSION _IO(0xba, 0x01)
#define SESSION_PRESERVE_FD _IO(0xba, 0x40)
#define SESSION_RETRIEVE_FD _IO(0xba, 0x41)
#define SESSION_FINISH _IO(0xba, 0x42)

struct session_request {
	uint32_t size;
	int32_t fd;
	char name[64];
};

struct file_request {
	uint32_t size;
	int32_t fd;
	uint64_t token;
};

struct finish_request {
	uint32_t size;
	uint32_t reserved;
};

/* The session's descriptor, or -1. `name` is percent-encoded, 64 bytes with the zero when decoded. */
static int open_session(int device, unsigned long request, const char *name)
{
	struct session_request session = { .size = sizeof(session), .fd = -1 };
	unsigned int byte;

	for (size_t at = 0; *name && at < sizeof(session.name) - 1; at++) {
		if (*name == '%' && sscanf(name, "%%%2x", &byte) == 1) {
			session.name[at] = byte;
			name += 3;
		} else {
			session.name[at] = *name++;
		}
	}
	if (*name)
		errno = ENAMETOOLONG;
	return *name || ioctl(device, request, &session) ? -1 : session.fd;
}

/* A memfd as `attributes` (size= seed= pos= seals= hole=) want it; -1 with errno. */
static int make_memfd(char *attributes)
{
	unsigned long long size = 0, seed = 0, position = 0, seals = 0, start, length, at = 0;
	char *holes[64];
	int hole_count = 0;
	int fd = memfd_create("khorus", MFD_ALLOW_SEALING);

	for (char *word = strtok(attributes, " "); word; word = strtok(NULL, " ")) {
		if (!strncmp(word, "hole=", 5) && hole_count < 64)
			holes[hole_count++] = word;
		else if (!(sscanf(word, "size=%llu", &size) || sscanf(word, "seed=%llu", &seed) ||
			   sscanf(word, "pos=%llu", &position) || sscanf(word, "seals=%llu", &seals)))
			return errno = EINVAL, -1;
	}
	if (fd < 0 || ftruncate(fd, size))
		return -1;
	for (int i = 0; i < hole_count; i++) {
		if (sscanf(holes[i], "hole=%llu+%llu", &start, &length) != 2 || start < at)
			return errno = EINVAL, -1;
		if (fill(fd, seed, 0, at, start < size ? start : size))
			return -1;
		at = start + length;
	}
	if (fill(fd, seed, 0, at, size) || lseek(fd, position, SEEK_SET) < 0)
		return -1;
	if (seals && fcntl(fd, F_ADD_SEALS, seals))
		return -1;
	return fd;
}

static void preserve(int session, const char *name, uint64_t token, char *attributes)
{
	struct file_request file = { .size = sizeof(file), .fd = make_memfd(attributes), .token = token };

	if (file.fd < 0)
		fail("memfd %s %llu cannot be made: %m", name, (unsigned long long)token);
	else if (ioctl(session, SESSION_PRESERVE_FD, &file))
		fail("memfd %s %llu cannot be preserved: %m", name, (unsigned long long)token);
	if (file.fd >= 0)
		close(file.fd); /* the session keeps it */
}

static void retrieve(int session, const char *name, uint64_t token)
{
	struct file_request file = { .size = sizeof(file), .fd = -1, .token = token };
	struct stat status;
	char hex[65];

	if (ioctl(session, SESSION_RETRIEVE_FD, &file))
		return fail("memfd %s %llu cannot be retrieved: %m", name, (unsigned long long)token);
	if (fstat(file.fd, &status) || sha256_file(file.fd, 0, status.st_size, hex))
		fail("memfd %s %llu cannot be read: %m", name, (unsigned long long)token);
	else
		say("khorus-guest: memfd %s %llu %lld %s", name, (unsigned long long)token, (long long)status.st_size, hex);
	say("khorus-info: memfd %s %llu pos=%lld seals=%d blocks=%lld", name, (unsigned long long)token,
	    (long long)lseek(file.fd, 0, SEEK_CUR), fcntl(file.fd, F_GET_SEALS), (long long)status.st_blocks);
	close(file.fd); /* the session keeps it until FINISH */
}

static void finish(int session, const char *name)
{
	struct finish_request request = { .size = sizeof(request) };

	if (ioctl(session, SESSION_FINISH, &request))
		fail("session %s cannot be finished: %m", name);
	close(session);
}

static void do_sessions(int is_predecessor)
{
	char *lines = read_file("/khorus-sessions", NULL), *rest = NULL;
	int device, session = -1;
	char current[256] = "";

	if (!lines || !*lines)
		return;
	device = open("/dev/liveupdate", O_RDWR | O_CLOEXEC);
	if (device < 0)
		return fail("/dev/liveupdate cannot be opened: %m");
	for (char *line = strtok_r(lines, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		char name[256];
		unsigned long long token;
		int used = 0;
		int fields = sscanf(line, "%255s %llu%n", name, &token, &used);

		if (fields < 1)
			continue;
		if (strcmp(name, current)) {
			if (session >= 0 && !is_predecessor)
				finish(session, current);
			strcpy(current, name);
			session = open_session(device, is_predecessor ? LIVEUPDATE_CREATE_SESSION : LIVEUPDATE_RETRIEVE_SESSION, name);
			if (session < 0)
				fail("session %s cannot be %s: %m", name, is_predecessor ? "created" : "retrieved");
		}
		if (session < 0 || fields < 2)
			continue;
		if (is_predecessor)
			preserve(session, name, token, line + used);
		else
			retrieve(session, name, token);
	}
	if (session >= 0 && !is_predecessor)
		finish(session, current);
}

void make_sessions(void)
{
	do_sessions(1);
}

void retrieve_sessions(void)
{
	do_sessions(0);
}
