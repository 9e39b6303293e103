import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

/** Tests with real kernels in QEMU: `npm run test:kernel`. See test/kernel/setup.ts for what they need. */
export default defineConfig({
  test: {
    include: ['test/kernel/*.test.ts'],
    globalSetup: ['test/kernel/setup.ts'],
    // A file boots one guest at a time, and an emulated guest takes a whole CPU.
    maxWorkers: availableParallelism(),
    testTimeout: 600_000,
    hookTimeout: 600_000,
  },
});
