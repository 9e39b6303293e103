import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // These boot real kernels: npm run test:kernel.
    exclude: ['test/kernel/*.test.ts'],
    // Tests start worker threads and child processes of their own; two files at a time suit two cores.
    maxWorkers: 2,
    // Far beyond what any test takes on a quiet machine: to end what hangs, not to measure.
    testTimeout: 180_000,
    hookTimeout: 180_000,
  },
});
