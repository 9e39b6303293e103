/** Chaos, for the command. This file only exports. */
export { type ChaosOptions, type ChaosSummary, chaos, summaryLine } from './chaos.js';
export { chaosLines } from './chaos-report.js';
export { chaosScenario } from './chaos-scenario.js';
