export { type BootOptions, type BootResult, KEXEC_VERSION, type KexecBoot, openKexec } from './boot.js';
export { machineCommandLine } from './command-line.js';
export { type ConsoleExpectations, type ConsoleReport, ConsoleVerdict } from './console-verdict.js';
export { findQemu, type QemuEnd, qemuArguments } from './qemu.js';
