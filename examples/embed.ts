// Embedding khorus: hand a host over with a driver of one's own, and read what came of it.
import { runHandover } from 'khorus';

const abort = new AbortController();
const tooLate = setTimeout(() => abort.abort(), 30_000);

const result = await runHandover(
  {
    host: {
      arch: 'x86_64',
      memory: 512 * 2 ** 20,
      nodes: 2,
      cmdline: 'kho=on kho_scratch=16M,32M,16M',
      cpus: 4,
      release: '7.2.0-embedded',
    },
    profile: 'kho-v4',
    mode: 'hash',
    workers: 2,
    seed: 1,
    budget: { blackout: 10_000, onOverrun: 'cancel' },
    drivers: [
      {
        module: { url: new URL('./clock.js', import.meta.url).href, origin: './clock.js' },
        count: 3,
        options: {},
        after: [],
        priority: 0,
      },
    ],
  },
  { signal: abort.signal },
);
clearTimeout(tooLate);
console.log(`restored ${result.restoredDrivers} drivers, ${result.record.instances.length} instances`);
console.log(`failures: ${result.failures.length}`);
await result[Symbol.asyncDispose]();
