export { type CapturedDevice, capturedDevices } from './captured-devices.js';
export { type CapturedMachine, type ReadMachineOptions, readCapturedMachine, withKho } from './captured-machine.js';
export { copyMachineFiles } from './copy-machine-files.js';
export { redacted } from './redacted.js';
