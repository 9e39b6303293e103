import { createHash } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import type { KexecImage } from '../arch/index.js';
import { KhoError, type SerializedKhoError } from '../errors.js';
import { type FdtNode, FdtReader } from '../fdt/index.js';
import {
  after,
  alignDown,
  hex,
  PAGE_SIZE,
  type PhysicalAddress,
  type PhysicalMemory,
  walkRadixTree,
  writeImage,
} from '../memblock/index.js';
import { VERSION } from '../version.js';
import type { DriverModule, EarlyBytes, SnapshotDigests } from '../workers/index.js';
import type { RunOptions } from './handover-run.js';
import type { Host } from './host.js';
import type { KexecPlan } from './kexec-files.js';
import type { LateWrites } from './late-writes.js';
import type { ModeChoice } from './mode-choice.js';
import { bootNextHost, type NextKernel } from './next-host.js';
import type { Finalized } from './output.js';
import type { RegisteredDriver, Registry } from './registry.js';
import type { Reservations } from './reservations.js';
import type { FrozenInstance } from './restore-check.js';
import {
  type DriverRecord,
  failureOf,
  type KexecRecord,
  type MemoryStretchRecord,
  type RangeRecord,
  RUN_RECORD_VERSION,
  type RunRecord,
  type SuccessorReport,
  type UnbackedRecord,
  unbackedBytes,
  unbackedMemoryOf,
} from './run-record.js';
import type { Timeline, TimelineRecorder } from './timeline.js';

interface HandoverParts extends Finalized {
  readonly host: Host;
  readonly plan: RunOptions;
  /** Why its mode, if mode `auto` chose it. */
  readonly choice?: ModeChoice;
  readonly registry: Registry;
  readonly reservations: Reservations;
  readonly kexec: KexecImage;
  /** By instance: digests of its frozen state. */
  readonly digests: ReadonlyMap<number, SnapshotDigests>;
  readonly recorder: TimelineRecorder;
  readonly early: EarlyBytes;
  /** Drivers that were frozen before the blackout. */
  readonly frozenEarly: ReadonlySet<number>;
  readonly shutdownFailures: readonly SerializedKhoError[];
  /** Absent if nobody looked for late writes. */
  readonly lateWrites?: LateWrites;
}

/**
 * A finished handover, at the jump: everything a successor needs is in the host's memory. It holds that memory until it
 * is disposed of. Main thread only.
 */
export class Handover implements Disposable {
  readonly #parts: HandoverParts;
  #preserved: { readonly ranges: readonly RangeRecord[]; readonly unbacked: readonly UnbackedRecord[] } | undefined;
  #released = false;
  #spent = false;

  constructor(parts: HandoverParts) {
    this.#parts = parts;
  }

  /** Why the mode is the one it is, if mode `auto` chose it. */
  get choice(): ModeChoice | undefined {
    return this.#parts.choice;
  }

  /** The drivers' modules, which a successor needs to restore their state. */
  get modules(): readonly DriverModule[] {
    return this.#parts.registry.drivers.map(({ module }) => module);
  }

  /** Everything that happened, and when. Unlike {@link record}, it costs nothing: no preserved memory is read. */
  get timeline(): Timeline {
    return this.#parts.recorder.timeline;
  }

  /** Every instance with the digest of the state in which it was frozen. Costs nothing. */
  get instances(): readonly FrozenInstance[] {
    const { registry, digests } = this.#parts;
    return registry.instances.map(({ driver, name }, item) => ({
      driver: registry.drivers[driver]?.name ?? '',
      name,
      digest: digests.get(item)?.state ?? '',
    }));
  }

  /**
   * The host of the next kernel: in the same memory, with the same scratch and `reserve_mem` areas, one kexec further.
   * `report` is what the successor said of this handover (restoreImage, startSuccessor). What its drivers claimed stays
   * taken, and a shard that declares as many pages as before is granted the same extents in the next handover. The rest is
   * free.
   *
   * This handover is spent then: disposing of it frees nothing. So is its host: everything of it is KHO_EBUSY. Errors
   * change nothing: KHO_EINVAL for a report of another handover, or that tells of any failure; KHO_EBUSY for a handover
   * that was disposed of, and the second time; KHO_EOPNOTSUPP if the next kernel's command line switches KHO off;
   * KHO_ENOMEM if the next kernel, with the CPUs of this host, has no room in scratch.
   */
  nextHost(report: SuccessorReport, kernel?: NextKernel): Host {
    this.#checkUnspent();
    if (this.#released) throw new KhoError('KHO_EBUSY', 'the handover was disposed of: its memory is free');
    const host = bootNextHost({ ...this.#parts, instances: this.instances }, report, kernel);
    this.#spent = true;
    this.#parts.reservations.dma.close(); // the old kernel's devices are not the next one's
    return host;
  }

  /** The finished blobs by name, as they lie in memory; the root FDT, or the one FDT, under `fdt`. */
  blob(name: string): Uint8Array | undefined {
    this.#checkUnspent();
    const { host, root, subtrees } = this.#parts;
    if (name === 'fdt') return host.memory.read(root.address, root.size);
    const subtree = subtrees.find((candidate) => candidate.name === name);
    return subtree === undefined ? undefined : host.memory.read(subtree.address, subtree.size);
  }

  /** The memory that has no bytes: what to tell a successor of the image, which cannot say it (`unbacked` of its input). */
  get unbackedMemory(): MemoryStretchRecord[] {
    return unbackedMemoryOf({ host: this.#parts.host.memory });
  }

  /**
   * Writes the memory as a sparse file, offset = physical address: what is preserved, the tracker, the kexec segments.
   * Guests' memory is preserved, but a hole as well: it has no bytes here. All other memory is of no meaning to the next kernel, and a hole. KHO_EEXIST if the file is there.
   */
  async writeImage(file: string, signal?: AbortSignal): Promise<void> {
    this.#checkUnspent();
    const { host, root, trackerPages, kexec } = this.#parts;
    const ranges = [
      ...this.ranges().map(({ address, order }) => ({
        base: address as PhysicalAddress,
        size: 2 ** order * PAGE_SIZE,
      })),
      ...trackerPages.map((base) => ({ base, size: PAGE_SIZE })),
      ...kexec.segments.map(({ address, bytes }) => ({ base: address, size: bytes.length })),
      ...(kexec.fdt === undefined ? [] : [{ base: root.address, size: root.size }]),
    ];
    await writeImage(host.memory, file, { ranges, ...(signal === undefined ? {} : { signal }) });
  }

  /**
   * Writes the digests of all frozen pages that are handed over, so that the successor finds what was written to them after
   * the jump (`frozen` of its input). False, with no file written, if late writes are not looked for.
   */
  async writeFrozenDigests(file: string): Promise<boolean> {
    const { host, reservations, lateWrites } = this.#parts;
    await lateWrites?.writeDigests(file, host.memory, reservations);
    return lateWrites !== undefined;
  }

  /** The boot ROM that starts the kernel which was loaded; undefined without one. */
  get bootRom(): Uint8Array | undefined {
    return this.#parts.kexec.start?.rom;
  }

  /** Writes what debugfs shows of an outgoing handover, under its names, below `directory`. */
  async writeDebugfs(directory: string): Promise<void> {
    const { host, subtrees } = this.#parts;
    const out = join(directory, 'kho', 'out');
    await mkdir(subtrees.length === 0 ? out : join(out, 'sub_fdts'), { recursive: true });
    await writeFile(join(out, 'fdt'), this.blob('fdt') ?? new Uint8Array());
    for (const { name } of subtrees) await writeFile(join(out, 'sub_fdts', name), this.blob(name) ?? new Uint8Array());
    const lines = (values: readonly number[]): string => values.map((value) => `${hex(value)}\n`).join('');
    await writeFile(join(out, 'scratch_phys'), lines(host.scratch.areas.map(({ address }) => address)));
    await writeFile(join(out, 'scratch_len'), lines(host.scratch.areas.map(({ size }) => size)));
  }

  /**
   * Every preserved object that has content, with its owner and digest, in the order of the tracker. Computed once: it
   * reads them all.
   */
  ranges(): readonly RangeRecord[] {
    return this.#walk().ranges;
  }

  /** Every preserved object that has none: guest memory. Neighbours of one order and owner are one record. */
  unbacked(): readonly UnbackedRecord[] {
    return this.#walk().unbacked;
  }

  #walk(): { readonly ranges: readonly RangeRecord[]; readonly unbacked: readonly UnbackedRecord[] } {
    this.#checkUnspent();
    if (this.#preserved !== undefined) return this.#preserved;
    const { host, reservations } = this.#parts;
    const ranges: RangeRecord[] = [];
    const unbacked: (UnbackedRecord & { count: number })[] = [];
    walkRadixTree(host.memory, reservations.tracker.root, (address, order) => {
      const owner = reservations.ownerOf(address) ?? { kind: 'pages', name: '' };
      if (owner.kind !== 'guest') {
        ranges.push({ address, order, owner, ...digestsOf(host.memory, address, 2 ** order) });
        return;
      }
      const last = unbacked.at(-1);
      const isNext = last?.address === address - (last?.count ?? 0) * 2 ** order * PAGE_SIZE;
      if (last !== undefined && isNext && last.order === order && last.owner === owner) last.count++;
      else unbacked.push({ address, order, count: 1, owner });
    });
    this.#preserved = { ranges, unbacked };
    return this.#preserved;
  }

  /** run.json, without a successor's part. */
  record(): RunRecord {
    const { host, plan, choice, registry, kexec, rendered, digests, recorder, root, trackerPages } = this.#parts;
    const { frozenEarly, shutdownFailures, lateWrites } = this.#parts;
    const { ranges, unbacked } = this.#walk();
    const nodes = this.#driverNodes();
    const pageBytes = new Map<string, number>();
    for (const { owner, order } of ranges) {
      if (owner.kind !== 'pages') continue;
      pageBytes.set(owner.name, (pageBytes.get(owner.name) ?? 0) + 2 ** order * PAGE_SIZE);
    }
    const guestBytes = (name: string): number =>
      unbackedBytes({ unbacked: unbacked.filter(({ owner }) => owner.name === name) });
    return {
      schemaVersion: RUN_RECORD_VERSION,
      khorus: VERSION,
      node: process.version,
      date: new Date().toISOString(),
      host: {
        ...host.options,
        ranges: host.memory.ranges.map(({ base, size, nid, backed }) => ({
          ...{ base, size, nid },
          ...(!backed && { backed: false as const }),
        })),
        scratch: host.scratch.areas.map(({ address, size }) => ({ address, size })),
        reserveMem: host.reserveMem.map(({ name, address, size }) => ({
          name,
          address,
          size,
          sha256: sha256(host.memory.read(address, alignDown(size, PAGE_SIZE))),
        })),
      },
      profile: plan.profile,
      mode: plan.mode,
      ...(choice && { modeChoice: choice }),
      workers: plan.workers,
      seed: plan.seed,
      ...(kexec.fdt === undefined ? {} : { fdtMax: kexec.fdt.segment.memorySize }),
      ...(plan.budget === undefined ? {} : { budget: plan.budget }),
      trigger: plan.trigger ?? 'activate',
      ...(lateWrites && { lateWrites: { policy: lateWrites.policy, found: lateWrites.found } }),
      ...(shutdownFailures.length > 0 && { shutdownFailures: shutdownFailures.map(failureOf) }),
      ...(plan.kexec && { kexec: kexecRecord(plan.kexec, kexec) }),
      drivers: registry.drivers.map((driver) => {
        const shards = driver.instances.reduce((sum, item) => sum + (registry.instances[item]?.shardCount ?? 0), 0);
        return {
          name: driver.name,
          compatible: driver.compatible,
          hosted: driver.hosted,
          module: driver.module,
          instances: driver.instances.length,
          shards,
          nodes: rendered.get(driver.name)?.nodes ?? 0,
          properties: rendered.get(driver.name)?.properties ?? 0,
          blob: this.#blobRecord(driver.name, nodes),
          pageBytes: pageBytes.get(driver.name) ?? 0,
          ...(guestBytes(driver.name) > 0 && { guestBytes: guestBytes(driver.name) }),
          ...this.#stateBytes(driver),
          ...(frozenEarly.has(driver.index) && { frozenEarly: true as const }),
          ...(driver.budget !== undefined && { budget: driver.budget }),
        };
      }),
      instances: this.#instanceRecords(digests, nodes),
      root: {
        ...root,
        // A root FDT is one of the ranges; the one FDT is preserved by nothing.
        ...(kexec.fdt && digestsOf(host.memory, root.address, Math.ceil(root.size / PAGE_SIZE))),
      },
      ranges,
      ...(unbacked.length > 0 && { unbacked }),
      tracker: trackerPages.map((address) => ({ address, sha256: sha256(host.memory.view(address, PAGE_SIZE)) })),
      timeline: recorder.timeline,
    };
  }

  /** Whether the next kernel has taken over: {@link nextHost}. */
  get spent(): boolean {
    return this.#spent;
  }

  /** Whether the memory was given back. */
  get released(): boolean {
    return this.#released;
  }

  /** Gives the memory back: the host is as it was before the handover. Nothing, if the next kernel has it. */
  [Symbol.dispose](): void {
    if (this.#released || this.#spent) return;
    this.#released = true;
    this.#parts.reservations.release();
  }

  #checkUnspent(): void {
    if (this.#spent)
      throw new KhoError('KHO_EBUSY', 'the handover is spent: the next kernel has its memory (nextHost)');
  }

  /** By driver's name: the root of its FDT, or its node of the one FDT; none for a raw blob. */
  #driverNodes(): Map<string, FdtNode> {
    const { kexec, registry } = this.#parts;
    const one = kexec.fdt && FdtReader.open(this.blob('fdt') ?? new Uint8Array()).root;
    return new Map(
      registry.drivers.flatMap(({ name, blob }): [string, FdtNode][] => {
        const bytes = one !== undefined || blob === 'raw' ? undefined : this.blob(name);
        const node = one?.child(name) ?? (bytes && FdtReader.open(bytes).root);
        return node === undefined ? [] : [[name, node]];
      }),
    );
  }

  /** How much of a driver's state there was before the blackout. */
  #stateBytes({ instances }: RegisteredDriver): { stateBytes: number; earlyBytes: number } {
    const { registry, early } = this.#parts;
    const sum = { stateBytes: 0, earlyBytes: 0 };
    for (const item of instances) {
      const { firstShard = 0, shardCount = 0 } = registry.instances[item] ?? {};
      for (let shard = firstShard; shard < firstShard + shardCount; shard++) {
        const bytes = early.of(shard);
        sum.stateBytes += bytes.all;
        sum.earlyBytes += bytes.early;
      }
    }
    return sum;
  }

  #blobRecord(driver: string, nodes: ReadonlyMap<string, FdtNode>): DriverRecord['blob'] {
    const { kexec, root, subtrees, rendered } = this.#parts;
    const node = kexec.fdt && nodes.get(driver);
    if (node !== undefined) return { address: root.address + node.offset, size: rendered.get(driver)?.size ?? 0 };
    const { address = 0, size = 0 } = subtrees.find(({ name }) => name === driver) ?? {};
    return { address, size };
  }

  #instanceRecords(
    digests: ReadonlyMap<number, SnapshotDigests>,
    nodes: ReadonlyMap<string, FdtNode>,
  ): RunRecord['instances'] {
    const { registry } = this.#parts;
    const offsets = new Map<string, number>();
    for (const [driver, node] of nodes) {
      for (const { name, offset } of node.children()) offsets.set(`${driver}/${name}`, offset);
    }
    return registry.instances.map((instance, item) => {
      const driver = registry.drivers[instance.driver]?.name ?? '';
      const blobOffset = offsets.get(`${driver}/${instance.name}`) ?? 0;
      const { state = '', contents } = digests.get(item) ?? {};
      return { driver, name: instance.name, digest: state, ...(contents && { digests: contents }), blobOffset };
    });
  }
}

/** SHA-256 of whole pages, and the CRC-32 of each. */
export function digestsOf(
  memory: PhysicalMemory,
  address: PhysicalAddress,
  pages: number,
): Pick<RangeRecord, 'sha256' | 'pageCrcs'> {
  const hash = createHash('sha256');
  const crcs = Buffer.alloc(pages * 4);
  for (let page = 0; page < pages; page++) {
    const bytes = memory.view(after(address, page * PAGE_SIZE), PAGE_SIZE);
    hash.update(bytes);
    crcs.writeUInt32LE(crc32(bytes), page * 4);
  }
  return { sha256: hash.digest('hex'), pageCrcs: crcs.toString('base64') };
}

/** What run.json says of a loaded kernel. */
export function kexecRecord({ kernel, initrd, commandLine }: KexecPlan, image: KexecImage): KexecRecord {
  return {
    kernel,
    ...(initrd !== undefined && { initrd }),
    ...(commandLine !== undefined && { commandLine }),
    version: image.start?.version ?? '',
    entry: image.start?.entry ?? 0,
    segments: image.segments.map(({ what, address, bytes, memorySize }) => ({
      what,
      address,
      size: bytes.length,
      memorySize,
    })),
  };
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
