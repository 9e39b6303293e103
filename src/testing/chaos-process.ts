/** A process that makes runs of chaos, one after another: what a run does to its process does no harm to the others. */
import { serveChaos } from './chaos-serve.js';

serveChaos();
