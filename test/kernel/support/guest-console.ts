/** What the guest's init (test/kernel/guest/init.c) said on a console, read from QEMU's output. */
export interface GuestReport {
  /** Revived areas by name: whole size, SHA-256 of the whole pages. */
  reserveMem: Map<string, SizeAndDigest>;
  /** By `SESSION/TOKEN`, the session encoded as in the line. */
  memfds: Map<string, SizeAndDigest>;
  /** By `SESSION/TOKEN`: `pos=0`, `seals=0`, … as they stand. */
  memfdAttributes: Map<string, string[]>;
  errors: string[];
  /** It came to its end, with or without errors. */
  done: boolean;
  scratch: { address: number; size: number }[];
  /** From `Kernel code` to `Kernel bss` of /proc/iomem. */
  kernelImage: { address: number; size: number } | undefined;
  /** As sysfs writes it: `0`, `0-1`. */
  nodesOnline: string | undefined;
  /** Pages that the page allocator manages, by node. */
  managed: number[];
  /** Pages of all nodes: managed, and free now. */
  memoryTotal: number | undefined;
  memoryFree: number | undefined;
  /** Bytes of debugfs files, by their path under kho/, such as `out/fdt`. */
  dumps: Map<string, Uint8Array>;
}

export interface SizeAndDigest {
  size: number;
  /** SHA-256, 64 hex digits. */
  sha256: string;
}

/** Each boot's part of a console that shows several, cut where a kernel begins to speak. */
export function bootsOf(consoleText: string): string[] {
  return consoleText.split(/^(?=\[ +0\.000000\] Linux version )/m).filter((text) => text.includes('Linux version '));
}

export function guestReport(consoleText: string): GuestReport {
  const report: GuestReport = {
    reserveMem: new Map(),
    memfds: new Map(),
    memfdAttributes: new Map(),
    errors: [],
    done: false,
    scratch: [],
    kernelImage: undefined,
    nodesOnline: undefined,
    managed: [],
    memoryTotal: undefined,
    memoryFree: undefined,
    dumps: new Map(),
  };
  const hexDumps = new Map<string, string>();
  for (const [, kind, text] of consoleText.matchAll(/khorus-(guest|info|dump): ([^\r\n]*)/g)) {
    const [word, ...rest] = text.split(' ');
    const key = `${rest[0]}/${rest[1]}`;
    if (kind === 'dump') hexDumps.set(word, (hexDumps.get(word) ?? '') + rest[0]);
    else if (word === 'reserve_mem') report.reserveMem.set(rest[0], { size: Number(rest[1]), sha256: rest[2] });
    else if (word === 'memfd' && kind === 'guest') {
      report.memfds.set(key, { size: Number(rest[2]), sha256: rest[3] });
    } else if (word === 'memfd') report.memfdAttributes.set(key, rest.slice(2));
    else if (word === 'error') report.errors.push(rest.join(' '));
    else if (word === 'done') report.done = true;
    else if (word === 'scratch') report.scratch.push({ address: Number(rest[0]), size: Number(rest[1]) });
    else if (word === 'kernel-image') report.kernelImage = { address: Number(rest[0]), size: Number(rest[1]) };
    else if (word === 'nodes') report.nodesOnline = rest[0];
    else if (word === 'managed') report.managed[Number(rest[0])] = Number(rest[1]);
    else if (word === 'memory-total') report.memoryTotal = Number(rest[0]);
    else if (word === 'memory-free') report.memoryFree = Number(rest[0]);
  }
  for (const [name, hex] of hexDumps) report.dumps.set(name, Buffer.from(hex, 'hex'));
  return report;
}

/** The digests of a guest's report under the names that a run gives them: `reserve_mem NAME`, `memfd SESSION/TOKEN`. */
export function foundBy({ reserveMem, memfds }: GuestReport): Map<string, string> {
  const areas = [...reserveMem].map(([name, { sha256 }]): [string, string] => [`reserve_mem ${name}`, sha256]);
  return new Map([...areas, ...[...memfds].map(([name, { sha256 }]): [string, string] => [`memfd ${name}`, sha256])]);
}

/** What is trouble in a boot that should go well, whoever says it. */
const TROUBLE =
  /WARNING:|BUG:|Oops|Call Trace|Kernel panic|refcount_t:|[Uu]nable to restore|restore failed|khorus-guest: error/;
/** Lines about the handover. The ones that are not expected are trouble too. */
const HANDOVER = /\b(kho|kho_\w+|test_kho|luo|luo_\w+|memfd_luo|liveupdate|reserve_mem|reserve-mem|memblock)\b/i;
const EXPECTED = [
  /\] (Kernel command|Command) line: /,
  /\] KHO: found kexec handover data\./,
  /\] KHO: exec from: \S+ \(count \d+\)/,
  /\] KHO: scratch areas: lowmem: \d+MiB global: \d+MiB pernode: \d+MiB/,
  /\] test_kho: KHO restore succeeded/,
  /\] luo: Retrieved live update data, liveupdate number: \d+/,
  /\] liveupdate test: /,
  /\] Revived memory reservation '.*' from KHO/,
  /\] khorus-(guest: (reserve_mem|memfd)|info|dump)/,
];

/** Lines that a boot which goes well does not have. */
export function troubleOn(consoleText: string): string[] {
  return consoleText
    .split(/\r?\n/)
    .filter((line) => TROUBLE.test(line) || HANDOVER.test(line))
    .filter((line) => !EXPECTED.some((expected) => expected.test(line)));
}
