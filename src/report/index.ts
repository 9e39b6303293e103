export { type Apportioned, apportion } from './apportion.js';
export {
  type BlackoutPhase,
  type BlackoutReport,
  blackoutLine,
  blackoutReport,
  type TimedRun,
} from './blackout-line.js';
export { type BlamedRun, type BlameEntry, blame, blameLines } from './blame.js';
export { type Column, columns } from './columns.js';
export { formatBytes, formatCount, formatDuration, plural } from './format.js';
export { overrunSentence } from './overrun-sentence.js';
export { type RunSummary, runSummary, runSummaryLines } from './run-summary.js';
export { type TimeReport, timeLines, timeReport } from './time.js';
