/** `npm run --silent kernel`: prints the path of the test kernel's bzImage; builds it first if it is not kept yet. */
import { testKernel } from '../test/kernel/support/test-kernel.js';

try {
  const { bzImage } = await testKernel((text) => process.stderr.write(`test kernel: ${text}\n`));
  process.stdout.write(`${bzImage}\n`);
} catch (error) {
  if (!(error instanceof Error)) throw error;
  process.stderr.write(`there is no test kernel: ${error.message}\n`);
  process.exitCode = 1;
}
