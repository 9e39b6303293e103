export * from './kexec-metadata.js';
export * from './kho-root.js';
export * from './memblock-fdt.js';
export * from './profile.js';
export * from './scratch-array.js';
