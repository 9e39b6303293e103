#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>
#include "guest.h"

static int log_fd = 2;

void say_to_kernel_log(void)
{
	int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);

	if (fd >= 0)
		log_fd = fd;
}

void say(const char *format, ...)
{
	char line[900]; /* a record of /dev/kmsg holds a little less than 1024 bytes */
	va_list arguments;

	va_start(arguments, format);
	int length = vsnprintf(line, sizeof(line) - 1, format, arguments);
	va_end(arguments);
	if (length > (int)sizeof(line) - 2)
		length = sizeof(line) - 2;
	line[length++] = '\n';
	if (write(log_fd, line, length) < 0)
		write(2, line, length);
}
