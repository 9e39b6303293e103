import type { DriverRegistration, HostOptions } from 'khorus';

/** A small host, quickly made. */
export const SMALL_HOST: HostOptions = {
  arch: 'x86_64',
  memory: 256 * 2 ** 20,
  nodes: 2,
  cmdline: 'kho=on kho_scratch=8M,16M,8M',
  cpus: 2,
  release: '7.2.0-test',
};

/** Instances of a driver that comes with khorus. */
export function builtInDriver(name: string, count = 1, options: unknown = {}): DriverRegistration {
  const { href: url } = new URL(`../../dist/drivers/${name}.js`, import.meta.url);
  return { module: { url, origin: name }, count, options, after: [], priority: 0 };
}

/**
 * What drivers of {@link driverModule} have done, in order: each callback appends a line to this shared text. Room for
 * some thousand lines.
 */
export class SharedLog {
  readonly buffer = new SharedArrayBuffer(2 ** 17);

  /** Lines such as `freeze tested0`, in the order in which they were written. */
  get lines(): string[] {
    const length = Atomics.load(new Int32Array(this.buffer), 0);
    const text = new TextDecoder().decode(new Uint8Array(this.buffer, 4, length).slice());
    return text.split('\n').filter((line) => line !== '');
  }

  clear(): void {
    new Uint8Array(this.buffer).fill(0);
  }
}

/** How often each callback's line is there. */
export function countOf(lines: readonly string[], start: string): number {
  return lines.filter((line) => line.startsWith(start)).length;
}

/**
 * A driver's module made of text. `body` are callbacks of its own, which replace those here; `log(ctx, 'freeze')` appends
 * to the SharedLog in the options. It has two shards with pages, and prepares a preserved range and an early node.
 */
export function driverModule(
  name: string,
  body = '',
  { hosted = false, shards = '[{ pages: 8 }, { pages: 4 }]' } = {},
): { url: string; origin: string } {
  const source = `
    const log = (ctx, what) => {
      const line = new TextEncoder().encode(what + ' ' + ctx.instance + '\\n');
      const words = new Int32Array(ctx.options.log);
      const at = Atomics.add(words, 0, line.length);
      new Uint8Array(ctx.options.log, 4).set(line, at);
    };
    const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    export default { name: '${name}', compatible: '${name}-v1', hosted: ${hosted},
      shards: () => (${shards}),
      create: (ctx) => { log(ctx, 'create'); return { made: 1 }; },
      restore: () => ({}), snapshot: () => 1,
      prepare(ctx) {
        log(ctx, 'prepare');
        const range = ctx.alloc(3);
        ctx.preserve(range);
        ctx.node('early').flag('x');
        return range;
      },
      freeze(ctx) { log(ctx, 'freeze'); },
      serialize(ctx, shard) { log(ctx, 'serialize'); ctx.root.u32('of-' + shard, shard); },
      cancel(ctx) {
        log(ctx, 'cancel');
        if (ctx.prepared) { ctx.unpreserve(ctx.prepared); ctx.free(ctx.prepared); }
      },
      ${body} };`;
  return { url: `data:text/javascript,${encodeURIComponent(source)}`, origin: name };
}
