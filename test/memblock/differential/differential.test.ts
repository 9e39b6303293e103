import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type PhysicalAddress, physicalAddress } from '#dist/memblock/address.js';
import { Memblock } from '#dist/memblock/memblock.js';
import { MemblockFlags, NUMA_NO_NODE } from '#dist/memblock/region.js';
import { CALLS } from './calls.js';
import { compare, shrink } from './compare.js';
import { arraysOf, digestOf } from './digest.js';
import { Generator } from './generate.js';
import { KernelPeer } from './kernel-peer.js';
import { ModelPeer, type Operation, type Peer, type Sequence } from './peer.js';
import { runDifferential } from './run.js';

/** Runs ours against another memblock; the lines printed, and the counts. */
async function against(make: (initialRegions: number) => Memblock, operations: number, seed = 5) {
  const lines: string[] = [];
  const peers = [new ModelPeer(), new ModelPeer(make)] as const;
  const counts = await runDifferential(peers, { seed, operations, print: (line) => lines.push(line) });
  return { ...counts, lines };
}

/** The calls of the first divergence printed, without their indent. */
function firstCalls(lines: readonly string[]): string[] {
  const start = lines.findIndex((line) => line.startsWith('divergence'));
  const end = lines.findIndex((line, index) => index > start && line.startsWith('  before'));
  return lines.slice(start + 1, end).map((line) => line.trim());
}

describe('the comparison', () => {
  it('of a memblock with itself finds nothing, in exactly as many operations as wanted', async () => {
    const found = await against((initialRegions) => new Memblock(undefined, { initialRegions }), 12_345);
    expect(found).toEqual({ operations: 12_345, divergences: 0, lines: [] });
  });

  it('makes the same sequences of the same seed, and others of another', () => {
    const sequences = (seed: number): Sequence[] => {
      const generator = new Generator(seed);
      return Array.from({ length: 5 }, () => generator.sequence(1000));
    };
    expect(sequences(1)).toEqual(sequences(1));
    expect(sequences(1)).not.toEqual(sequences(2));
  });

  it('comes to every function there is, and each succeeds and fails where it can do both', async () => {
    const generator = new Generator(3);
    const answers = new Map<string, Set<string>>();
    for (let operations = 0; operations < 30_000; ) {
      const sequence = generator.sequence(1000);
      const [lines] = await new ModelPeer().run([sequence]);
      for (const [index, { call }] of sequence.operations.entries()) {
        const known = answers.get(call) ?? new Set();
        answers.set(call, known.add(lines[index].split(' ')[0]));
      }
      operations += sequence.operations.length;
    }
    expect([...answers.keys()].sort()).toEqual(
      Object.keys(CALLS)
        .filter((call) => CALLS[call].weight > 0)
        .sort(),
    );
    for (const call of ['memblock_reserve', 'memblock_add', 'memblock_phys_free']) {
      expect([...(answers.get(call) ?? [])].sort()).toEqual(['-12', '0', 'panic']);
    }
    const constant = [...answers].filter(([, said]) => said.size === 1).map(([call]) => call);
    expect(constant.every((call) => answers.get(call)?.has('void'))).toBe(true);
  });
});

/** A memblock with something wrong. */
class Bug extends Memblock {
  constructor(initialRegions: number) {
    super(undefined, { initialRegions });
  }
}

// Bugs that somebody might plant: each in one place, none in what the others say.
const BUGS: Record<string, new (initialRegions: number) => Memblock> = {
  'a flag too many': class extends Bug {
    override reservedMarkNoinit(base: PhysicalAddress, size: number): void {
      const { RSRV_NOINIT, RSRV_KERN } = MemblockFlags;
      this.reserved.changeFlags(base, size, RSRV_NOINIT | RSRV_KERN, true);
    }
  },
  'a byte too many': class extends Bug {
    override isRegionMemory(base: PhysicalAddress, size: number): boolean {
      return super.isRegionMemory(base, size + 1);
    }
  },
  'an array that does not mind the range to be reserved': class extends Bug {
    override findForArray(_start: PhysicalAddress, end: PhysicalAddress, size: number): PhysicalAddress | undefined {
      return super.findForArray(physicalAddress(0), end, size);
    }
  },
  'scratch-only mode that minds nodes only': class extends Bug {
    override setKhoScratchOnly(): void {}
  },
  'a node that is remembered after falling back': class extends Bug {
    override reserve(base: PhysicalAddress, size: number, { nid = NUMA_NO_NODE, flags = 0 as number } = {}): void {
      super.reserve(base, size, { nid: flags === MemblockFlags.RSRV_KERN && nid === NUMA_NO_NODE ? 0 : nid, flags });
    }
  },
  'the first page given away': class extends Bug {
    override findInRange(...args: Parameters<Memblock['findInRange']>): PhysicalAddress | undefined {
      const found = super.findInRange(...args);
      return found === 4096 && this.bottomUp ? undefined : found;
    }
  },
  'trimming that counts right': class extends Bug {
    override physMemSize(): number {
      return this.memory.regions.reduce((bytes, { size }) => bytes + size, 0);
    }
  },
  'a warning less': class extends Bug {
    override addNode(base: PhysicalAddress, size: number, nid: number, flags?: number): void {
      const { onWarning } = this;
      this.onWarning = undefined;
      super.addNode(base, size, nid, flags);
      this.onWarning = onWarning;
    }
  },
};

describe('a planted bug', () => {
  it.each(Object.keys(BUGS))('is found and shown in a few calls: %s', async (name) => {
    const found = await against((initialRegions) => new BUGS[name](initialRegions), 20_000);
    expect(found.divergences).toBeGreaterThan(0);
    const calls = firstCalls(found.lines);
    expect(calls.length).toBeGreaterThan(0);
    expect(calls.length).toBeLessThanOrEqual(16);
    // What is shown is what differs: run again, the last call is the one.
    expect(found.lines.filter((line) => /^ {2}(khorus|kernel): /.test(line)).length).toBeGreaterThanOrEqual(2);
  });

  it('is shrunk until nothing can be left out, and arguments are small', async () => {
    const { lines } = await against((initialRegions) => new BUGS['a flag too many'](initialRegions), 20_000);
    expect(firstCalls(lines)).toEqual([
      expect.stringMatching(/^(__)?memblock_reserve\(0, 1[,)]/),
      'memblock_reserved_mark_noinit(0, 1)',
    ]);
    expect(lines.slice(3, 6)).toEqual([
      expect.stringMatching(/^ {2}before: memory\(0\/\w+,0,0\)reserved\(1\/\w+,1,0\)\[0\+1,0,(-1|0)\] /),
      expect.stringMatching(/^ {2}khorus: 0 0 \w{16}, .*\[0\+1,10,(-1|0)\] /),
      expect.stringMatching(/^ {2}kernel: 0 0 \w{16}, .*\[0\+1,30,(-1|0)\] /),
    ]);
  });

  it('that shows late is cut off behind the first difference', async () => {
    const reserve: Operation = { call: 'memblock_reserve', args: [0x5000, 0x1000] };
    const noinit: Operation = { call: 'memblock_reserved_mark_noinit', args: [0x5000, 0x800] };
    const others: Operation[] = Array.from({ length: 30 }, (_, index) => ({
      call: 'memblock_add',
      args: [index * 0x10000, 0x1000],
    }));
    const sequence = { initialRegions: 128, operations: [...others, reserve, ...others, noinit, ...others] };
    const peers = [new ModelPeer(), new ModelPeer((regions) => new BUGS['a flag too many'](regions))] as const;
    const [divergence] = await compare(peers, [sequence]);
    expect(divergence?.index).toBe(61);
    const least = divergence && (await shrink(peers, divergence));
    expect(least?.sequence.operations.map(({ call }) => call)).toEqual([reserve.call, noinit.call]);
    expect(least?.index).toBe(1);
  });
});

describe('the kernel’s program', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'khorus-peer-'));
  });
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  /** A peer that is a shell script. */
  function script(text: string): Peer {
    const program = join(directory, 'peer');
    writeFileSync(program, `#!/bin/sh\n${text}\n`);
    chmodSync(program, 0o755);
    return new KernelPeer(program);
  }

  const sequences: Sequence[] = [
    { initialRegions: 16, operations: [{ call: 'memblock_add', args: [0x1000, 255] }] },
    {
      initialRegions: 2,
      operations: [
        { call: 'for_each_mem_pfn_range', args: [-1] },
        { call: 'memblock_alloc', args: [64, 64] },
      ],
    },
  ];

  it('reads each sequence as a boot and lines of hexadecimal numbers, and answers each line but that', async () => {
    const peer = script('while read -r line; do case $line in boot*) boot=$line;; *) echo "$boot: $line";; esac; done');
    expect(await peer.run(sequences)).toEqual([
      ['boot 10: memblock_add 1000 ff'],
      ['boot 2: for_each_mem_pfn_range -1', 'boot 2: memblock_alloc 40 40'],
    ]);
  });

  it('that answers otherwise, or not at all, is a divergence', async () => {
    const empty = `0 0 ${digestOf(new Memblock(undefined, { initialRegions: 16 }))}`;
    const wrong = await compare([new ModelPeer(), script(`cat >/dev/null; echo '${empty}'`)], sequences);
    expect(wrong.map((one) => one?.index)).toEqual([0, 0]);
    expect(wrong[0]?.said[1]).toBe(empty);
    expect(wrong[1]?.said[1]).toBe('');
  });

  it('that fails is an error', async () => {
    await expect(script('exit 3').run(sequences)).rejects.toThrow("the kernel's memblock ended with 3");
    await expect(script('kill -9 $$').run(sequences)).rejects.toThrow("the kernel's memblock ended with SIGKILL");
  });
});

describe('npm run test:memblock', () => {
  const run = (...args: string[]) =>
    spawnSync(process.execPath, ['--import', 'tsx', 'scripts/test-memblock.ts', ...args], { encoding: 'utf8' });

  it.each([['--ops', '0'], ['--ops', 'many'], ['--seed', '-1'], ['--sed', '1'], ['extra']])(
    'ends with 2 for %s %s',
    (...args) => {
      const { status, stdout, stderr } = run(...args);
      expect([status, stdout]).toEqual([2, '']);
      expect(stderr).toMatch(/^error: /);
    },
  );

  it('says how it is called', () => {
    const { status, stdout } = run('--help');
    expect(status).toBe(0);
    expect(stdout).toMatch(/--seed <n>[\s\S]*--ops <n>/);
  });

  it('ends with 1 and the reason where there is no kernel source', () => {
    const { status, stderr } = run('--ops', '1', '--tree', '/nowhere');
    expect(status).toBe(1);
    expect(stderr).toBe('/nowhere is no source of a kernel: it has no Makefile\n');
  });
});

it('arrays are printed with their room, bytes and place', () => {
  const memblock = new Memblock(undefined, { initialRegions: 2 });
  memblock.allowResize();
  memblock.addNode(physicalAddress(0x10000), 0x4000, 3, MemblockFlags.HOTPLUG);
  memblock.reserve(physicalAddress(0), 0x1000);
  memblock.reserve(physicalAddress(0x2000), 0x1000);
  memblock.reserve(physicalAddress(0x4000), 0x1000);
  expect(arraysOf(memblock)).toBe(
    'memory(1/2,4000,0)[10000+4000,1,3]reserved(4/4,4000,13000)[0+1000,0,-1][2000+1000,0,-1][4000+1000,0,-1][13000+1000,20,-1]',
  );
});
