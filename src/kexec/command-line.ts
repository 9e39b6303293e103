/**
 * What a kernel needs on its command line in a machine of ours: a serial console, no ACPI (no firmware made tables), and a
 * reboot that ends the machine, also after a panic.
 */
const MACHINE_PARAMETERS = ['console=ttyS0', 'acpi=off', 'reboot=k', 'panic=-1'];

/** `commandLine` with the machine's parameters added, except those that it sets itself. */
export function machineCommandLine(commandLine: string): string {
  const keys = new Set(commandLine.split(/\s+/).map(keyOf));
  const missing = MACHINE_PARAMETERS.filter((parameter) => !keys.has(keyOf(parameter)));
  return [commandLine.trim(), ...missing].filter((part) => part !== '').join(' ');
}

function keyOf(parameter: string): string {
  return parameter.split('=', 1)[0] ?? '';
}
