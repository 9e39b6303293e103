/*
 * The first and only process of a test guest.
 *
 * Orders come from the kernel's command line:
 *
 *   khorus.mode=successor    (default) find what was handed over, print digests of it, power off
 *   khorus.mode=predecessor  make sessions, print what KHO's debugfs shows, kexec into the next kernel
 *   khorus.mode=report       print scratch and memory layout alone, power off
 *   khorus.shmem=VALUE       predecessor: written to .../transparent_hugepage/shmem_enabled first ("always": memfds of 2 MiB folios)
 *
 * and from files of the initramfs:
 *
 *   /khorus-sessions         a memfd a line: SESSION TOKEN [size=N] [seed=N] [pos=N] [seals=N] [hole=START+LENGTH]...
 *                            or a SESSION alone, without memfds. SESSION is percent-encoded; numbers are decimal. A session's
 *                            lines stand together. A successor looks at the first two fields only, so that both sides can
 *                            have the same file. (A kernel does not list its sessions.)
 *   /next/kernel, /next/cmdline, /next/initrd   what a predecessor gives to kexec_file_load (no initrd: none)
 *
 * Content of a memfd: 32-bit little-endian word i is mix(seed, i), see below; holes read as zeros. A predecessor fills the
 * first reserve_mem area with the content of seed 1, the next one with that of seed 2, and so on.
 *
 * Everything is said in lines of the kernel's log, through /dev/kmsg: such a line is never torn by one of the kernel's.
 *
 *   khorus-guest: reserve_mem NAME SIZE SHA256       an area that the kernel says it revived; digest of its whole pages
 *   khorus-guest: memfd SESSION TOKEN SIZE SHA256
 *   khorus-guest: error TEXT
 *   khorus-guest: done
 *   khorus-info: KEY VALUE...                        attributes, kernel code, nodes, scratch, pages
 *   khorus-dump: NAME HEX                            the bytes of a debugfs file, in order, several lines a file
 *
 * SIZE, TOKEN in decimal; SHA256 64 hex digits; addresses with 0x.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "guest.h"

/* The value of `name=` on the kernel's command line, or NULL. */
static char *order(const char *name)
{
	char *line = read_file("/proc/cmdline", NULL);
	size_t length = strlen(name);

	for (char *word = line ? strtok(line, " \n") : NULL; word; word = strtok(NULL, " \n"))
		if (!strncmp(word, name, length) && word[length] == '=')
			return word + length + 1;
	return NULL;
}

static void mount_all(void)
{
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	int no_debugfs = mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);

	write_file("/proc/sys/kernel/printk_devkmsg", "on\n"); /* or ten lines in five seconds are all that is let through */
	say_to_kernel_log();
	if (no_debugfs)
		fail("debugfs cannot be mounted: %m");
}

static void show_machine(void)
{
	char *nodes = read_file("/sys/devices/system/node/online", NULL);
	char *iomem = read_file("/proc/iomem", NULL);
	unsigned long long code = 0;

	if (nodes)
		say("khorus-info: nodes %.*s", (int)strcspn(nodes, "\n"), nodes);
	for (char *line = iomem ? strtok(iomem, "\n") : NULL; line; line = strtok(NULL, "\n")) {
		unsigned long long start, end;

		if (sscanf(line, " %llx-%llx", &start, &end) != 2)
			continue;
		if (strstr(line, ": Kernel code"))
			code = start;
		else if (strstr(line, ": Kernel bss"))
			say("khorus-info: kernel-image 0x%llx 0x%llx", code, end + 1 - code);
		else if (line[0] != ' ' && strstr(line, ": System RAM"))
			say("khorus-info: ram 0x%llx 0x%llx", start, end + 1 - start);
	}
	char *start = read_file(KHO_DEBUGFS "out/scratch_phys", NULL);
	char *size = read_file(KHO_DEBUGFS "out/scratch_len", NULL);

	while (start && size && *start && *size) {
		say("khorus-info: scratch %.*s %.*s", (int)strcspn(start, "\n"), start, (int)strcspn(size, "\n"), size);
		start += strcspn(start, "\n") + 1;
		size += strcspn(size, "\n") + 1;
	}
}

/* What the page allocator has: pages that it manages on each node, and the two totals, in pages. */
static void show_memory(void)
{
	char *zones = read_file("/proc/zoneinfo", NULL);
	char *totals = read_file("/proc/meminfo", NULL);
	unsigned long managed[64] = { 0 }, pages, kib;
	int node = 0, nodes = 0;

	for (char *line = zones ? strtok(zones, "\n") : NULL; line; line = strtok(NULL, "\n")) {
		if (sscanf(line, "Node %d,", &node) == 1 && node >= 0 && node < 64)
			nodes = node >= nodes ? node + 1 : nodes;
		else if (sscanf(line, " managed %lu", &pages) == 1 && node >= 0 && node < 64)
			managed[node] += pages;
	}
	for (node = 0; node < nodes; node++)
		say("khorus-info: managed %d %lu", node, managed[node]);
	for (char *line = totals ? strtok(totals, "\n") : NULL; line; line = strtok(NULL, "\n")) {
		if (sscanf(line, "MemTotal: %lu kB", &kib) == 1)
			say("khorus-info: memory-total %lu", kib / 4);
		else if (sscanf(line, "MemFree: %lu kB", &kib) == 1)
			say("khorus-info: memory-free %lu", kib / 4);
	}
}

static void dump_file(const char *name)
{
	char path[512];
	size_t length = 0;

	snprintf(path, sizeof(path), KHO_DEBUGFS "%s", name);
	uint8_t *bytes = (uint8_t *)read_file(path, &length);

	if (!bytes)
		return fail("%s cannot be read: %m", path);
	for (size_t at = 0; at < length; at += 256) {
		char hex[513] = "";

		for (size_t i = at; i < length && i < at + 256; i++)
			sprintf(hex + 2 * (i - at), "%02x", bytes[i]);
		say("khorus-dump: %s %s", name, hex);
	}
	free(bytes);
}

static void dump_debugfs(void)
{
	DIR *directory = opendir(KHO_DEBUGFS "out/sub_fdts");
	char name[300];

	for (struct dirent *entry; directory && (entry = readdir(directory));) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "out/sub_fdts/%s", entry->d_name);
		dump_file(name);
	}
	dump_file("out/fdt");
}

static void load_next_kernel(void)
{
	char *command_line = read_file("/next/cmdline", NULL);
	int kernel = open("/next/kernel", O_RDONLY | O_CLOEXEC);
	int initrd = open("/next/initrd", O_RDONLY | O_CLOEXEC);
	unsigned long flags = initrd < 0 ? 4 /* KEXEC_FILE_NO_INITRAMFS */ : 0;

	if (kernel < 0 || !command_line)
		return fail("/next/kernel or /next/cmdline cannot be read: %m");
	if (syscall(SYS_kexec_file_load, kernel, initrd, strlen(command_line) + 1, command_line, flags))
		fail("kexec_file_load: %m");
}

int main(void)
{
	mount_all();
	char *mode = order("khorus.mode");
	char *shmem = order("khorus.shmem");

	if (!mode || !strcmp(mode, "successor")) {
		show_areas();
		retrieve_sessions();
		show_machine();
		show_memory();
	} else if (!strcmp(mode, "predecessor")) {
		if (shmem && write_file("/sys/kernel/mm/transparent_hugepage/shmem_enabled", shmem))
			fail("shmem_enabled=%s is refused: %m", shmem);
		fill_areas();
		make_sessions();
		show_machine();
		dump_debugfs();
		load_next_kernel();
		say("khorus-guest: done");
		reboot(LINUX_REBOOT_CMD_KEXEC);
		fail("kexec: %m");
	} else if (!strcmp(mode, "report")) {
		show_machine();
	} else {
		fail("khorus.mode=%s is not known", mode);
	}
	say("khorus-guest: done");
	reboot(LINUX_REBOOT_CMD_RESTART);
	fail("reboot: %m");
	for (;;)
		pause();
}
