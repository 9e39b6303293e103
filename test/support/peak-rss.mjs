// Loaded into every process of a command by NODE_OPTIONS: each writes its peak RSS, in KiB, to the file that the environment names.
import { appendFileSync } from 'node:fs';
import { isMainThread } from 'node:worker_threads';

if (isMainThread) {
  const tell = () =>
    appendFileSync(process.env.KHORUS_TEST_PEAKS, `${process.pid} ${process.resourceUsage().maxRSS}\n`);
  // A successor is ended as soon as it has answered, perhaps before it exits by itself.
  setInterval(tell, 20).unref();
  process.on('exit', tell);
}
