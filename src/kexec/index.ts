export { type BootResult, type KexecBoot, openKexec } from './boot.js';
export { machineCommandLine } from './command-line.js';
export { type ConsoleExpectations, ConsoleVerdict } from './console-verdict.js';
