export { type CalibrateOptions, calibrate, machineName } from './calibrate.js';
export { calibrationFile, loadCalibration, storeCalibration } from './calibration-file.js';
