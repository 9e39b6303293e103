/** The file that Piscina loads in every worker of a pool. */
export { runTask as default } from './run-task.js';
