import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  Coordinator,
  type CoordinatorOptions,
  type DriverRegistration,
  Host,
  type RangeRecord,
  restoreImage,
  type SuccessorReport,
  startSuccessor,
  WorkerPool,
} from 'khorus';

/** Where each restore happens. */
export type SuccessorPlace = 'here' | 'process';

export type ChainPlan = Required<Pick<CoordinatorOptions, 'mode' | 'profile' | 'workers' | 'seed'>> & {
  readonly successor: SuccessorPlace;
};

/** Every built-in driver: hosted ones, some that write many nodes, some that preserve memory, raw blobs. */
const DRIVERS: readonly [name: string, count: number, options: unknown][] = [
  ['iommu', 2, {}],
  ['netdevsim', 3, { queues: 20 }],
  ['vfio-pci', 3, {}],
  ['kvm-vcpu', 2, {}],
  ['ftrace', 1, { cpus: 2, pages: 4 }],
  ['memfd', 2, { size: '512K' }],
];
const RAW_DRIVERS: typeof DRIVERS = [
  ['luo', 1, { sessions: 3 }],
  ['kho-test', 1, { size: '256K' }],
];
const FDT_ROOM = 2 ** 20;
/** Handovers after which the pool is replaced: starting threads costs more than all the rest of a handover. */
const POOL_SERVES = 20;

/** A machine whose kernel is replaced again and again: the successor of one handover begins the next. */
export class Chain implements AsyncDisposable {
  #host: Host;
  #pool: WorkerPool;
  readonly #plan: ChainPlan;
  #handovers = 0;
  /** What drivers kept, as it was after the first handover. */
  #kept: string | undefined;
  /** Everything that was handed over, as it was in the second one: before that the memory is laid out by a cold boot. */
  #everything: string | undefined;
  #states: string | undefined;

  constructor(plan: ChainPlan) {
    this.#plan = plan;
    this.#pool = new WorkerPool({ threads: plan.workers });
    this.#host = new Host({
      arch: 'x86_64',
      memory: 256 * 2 ** 20,
      nodes: 2,
      cmdline: 'kho=on kho_scratch=16M,16M,8M reserve_mem=64K:4096:trace',
      cpus: 2,
      release: '7.2.0-soak',
    });
    for (const { address, size } of this.#host.reserveMem) this.#host.memory.fill(address, size, 0xa5);
  }

  get kexecCount(): number {
    return this.#host.kexecCount;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool[Symbol.asyncDispose]();
  }

  /** One handover, and the next kernel. Throws what went wrong. */
  async next(): Promise<void> {
    if (this.#handovers > 0 && this.#handovers % POOL_SERVES === 0) {
      await this.#pool[Symbol.asyncDispose]();
      this.#pool = new WorkerPool({ threads: this.#plan.workers });
    }
    const { profile, mode, seed, workers } = this.#plan;
    const oneFdt = profile !== 'kho-v4';
    const image = join(tmpdir(), 'ram.img');
    const coordinator = new Coordinator(this.#host, {
      ...{ profile, mode, seed, workers, pool: this.#pool },
      ...(oneFdt && { fdtMax: FDT_ROOM }),
    });
    try {
      for (const entry of oneFdt ? DRIVERS : [...DRIVERS, ...RAW_DRIVERS]) coordinator.register(registrationOf(entry));
      const handover = await coordinator.handover();
      this.#handovers++;
      await handover.writeImage(image);
      const input = { image, arch: 'x86_64', drivers: handover.modules };
      const report = await (this.#plan.successor === 'here' ? restoreImage(input) : startSuccessor(input));
      const ranges = handover.ranges();
      this.#host = handover.nextHost(report); // compares the digests of all states
      this.#check(report, ranges, oneFdt ? 0 : this.#handovers);
      handover[Symbol.dispose]();
    } finally {
      await coordinator[Symbol.asyncDispose]();
      await rm(image, { force: true });
    }
  }

  #check(report: SuccessorReport, ranges: readonly RangeRecord[], count: number): void {
    const at = `handover ${this.#handovers}`;
    if (report.kexecCount !== count || this.#host.kexecCount !== count) {
      throw new Error(`${at}: the kexec count is ${report.kexecCount}, expected ${count}`);
    }
    const discarded = new Set(report.discarded.map(({ address }) => address));
    const kept = ranges.filter(({ address }) => !discarded.has(address));
    this.#kept = same(this.#kept, kept.map(place), `${at}: memory that drivers keep is at other addresses`);
    const states = report.restored.map(({ driver, name, digest }) => `${driver}/${name} ${digest}`);
    this.#states = same(this.#states, states, `${at}: a driver has another state`);
    if (this.#handovers < 2) return;
    const everything = ranges.map((range) => {
      return range.owner.name === 'kexec-metadata' ? place(range) : `${place(range)} ${range.sha256}`;
    });
    this.#everything = same(this.#everything, everything, `${at}: what is handed over has another place or content`);
  }
}

function place({ address, order, owner }: RangeRecord): string {
  return `${address}/${order} ${owner.kind} ${owner.name} ${owner.instance} ${owner.shard}`;
}

/** The lines in one text, which must be `before` if that is there. */
function same(before: string | undefined, lines: readonly string[], otherwise: string): string {
  const now = [...lines].sort().join('\n');
  if (before === undefined || before === now) return now;
  const known = new Set(before.split('\n'));
  const first = now.split('\n').find((line) => !known.has(line)) ?? '(some are missing)';
  throw new Error(`${otherwise}, such as ${first}`);
}

function registrationOf([name, count, options]: (typeof DRIVERS)[number]): DriverRegistration {
  const url = new URL(`../../dist/drivers/${name}.js`, import.meta.url).href;
  return { module: { url, origin: name }, count, options, after: [], priority: 0 };
}
