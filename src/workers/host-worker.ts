/** The file that a driver host's thread runs: it answers {@link runTask} through Comlink, for life. */
import { parentPort } from 'node:worker_threads';
import { exposeOn } from './comlink.js';
import { runTask } from './run-task.js';

if (parentPort === null) throw new Error('host-worker.js is the entry of a worker thread');
exposeOn(parentPort, { runTask });
// All modules are loaded: see StartingThreads. Comlink leaves messages alone that are none of its own.
parentPort.postMessage('started');
