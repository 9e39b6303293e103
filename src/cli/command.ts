import { join } from 'node:path';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { PROFILE_NAMES } from '../abi/index.js';
import {
  LATE_WRITE_POLICIES,
  OVERRUN_POLICIES,
  phaseTimes,
  readRecord,
  SHUTDOWN_FAILURE_POLICIES,
  TRIGGERS,
} from '../coordinator/index.js';
import { KhoError } from '../errors.js';
import { PHYS_ADDR_MAX } from '../memblock/index.js';
import { blame, blameLines, timeLines, timeReport } from '../report/index.js';
import { VERSION } from '../version.js';
import { calibrateMachine } from './calibrate-command.js';
import { type CaptureCommandOptions, captureMachine } from './capture-command.js';
import { type ChaosCommandOptions, DEFAULT_CHAOS_RUNS, runChaos } from './chaos-command.js';
import { printDts } from './dts-command.js';
import { type InspectCommandOptions, inspectFile } from './inspect-command.js';
import { DEFAULT_SILENCE, type KexecCommandOptions, kexecImage } from './kexec-command.js';
import { printProfiles } from './profiles-command.js';
import { type RunCommandOptions, runScenario } from './run-command.js';
import { ARCHES, checkedBudget, checkedFdtMax, checkedGuestMemory, MODES, WORKERS_MAX } from './scenario-schema.js';
import { EXIT_DONE, EXIT_USAGE, exitCodeOf, SignalReceived, type Streams, Terminal } from './terminal.js';
import { type VerifyCommandOptions, verifyOutput } from './verify-command.js';

interface CommonOptions {
  json?: boolean;
  quiet?: boolean;
  verbose?: boolean;
}

/**
 * Runs the `khorus` command and resolves with its exit code: 0 done, 1 failed or over budget, 2 wrong usage, 130 and 143
 * after SIGINT and SIGTERM. Writes to the given streams alone.
 */
export async function runCommand(args: readonly string[], streams: Streams): Promise<number> {
  // Never taken off again: EPIPE comes after the write, when the command itself is over.
  for (const stream of [streams.stdout, streams.stderr]) {
    if (!stream.listeners('error').includes(ignoreClosedPipe)) stream.on('error', ignoreClosedPipe);
  }
  const wanted = { json: args.includes('--json'), verbose: args.includes('-v') || args.includes('--verbose') };
  const interruption = new AbortController();
  const onSignal = (signal: 'SIGINT' | 'SIGTERM'): void => {
    if (interruption.signal.aborted) process.exit(signal === 'SIGINT' ? 130 : 143);
    interruption.abort(new SignalReceived(signal));
  };
  const signals = (['SIGINT', 'SIGTERM'] as const).map((signal) => {
    const listener = (): void => onSignal(signal);
    process.on(signal, listener);
    return () => process.off(signal, listener);
  });
  let code = EXIT_DONE;
  const program = buildProgram(streams, interruption.signal, (exitCode) => {
    code = exitCode;
  });
  try {
    await program.parseAsync(args, { from: 'user' });
    return code;
  } catch (thrown) {
    if (thrown instanceof CommanderError) return usageExit(thrown, wanted.json, streams);
    const told = KhoError.from(thrown, 'KHO_EIO');
    // What is aborted by a signal may say no more than that it was aborted.
    const { aborted, reason } = interruption.signal;
    const error = aborted && told.code === 'KHO_ECANCELED' && reason instanceof SignalReceived ? reason : told;
    new Terminal(streams, wanted).fail(error);
    return exitCodeOf(error);
  } finally {
    for (const remove of signals) remove();
  }
}

function buildProgram(streams: Streams, signal: AbortSignal, exit: (code: number) => void): Command {
  const program = new Command('khorus')
    .description(
      'Parallel Kexec HandOver (KHO) serialization: hand a simulated host over, as real bytes, and get it back.',
    )
    .version(VERSION)
    .showHelpAfterError('(khorus --help shows what there is)')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void streams.stdout.write(text),
      writeErr: (text) => void streams.stderr.write(text),
      outputError: (text, write) => write(text.replace(/^error: /, 'khorus: ')),
    });
  const terminalOf = (options: CommonOptions): Terminal => new Terminal(streams, options);

  common(program.command('run'))
    .argument('[scenario]', 'a YAML file, or - for stdin; default: the packaged scenarios/host.yaml')
    .description('run a scenario: prepare, freeze, serialize, finalize, then boot a successor that restores it')
    .addOption(
      new Option('--mode <mode>', 'how callbacks are spread; auto: as khorus calibrate found to be fastest').choices(
        MODES,
      ),
    )
    .option('--workers <n>', 'threads of the pool; default: one for each CPU', wholeNumber(1, WORKERS_MAX))
    .addOption(new Option('--profile <profile>', 'the KHO ABI').choices(PROFILE_NAMES))
    .option('--fdt-max <size>', 'room for the one FDT of series-v4 and series-v5; default: 10M', fdtMax)
    .addOption(new Option('--arch <arch>', 'the architecture').choices(ARCHES))
    .addOption(
      new Option(
        '--trigger <trigger>',
        'what begins the blackout: the handover is activated, or devices shut down',
      ).choices(TRIGGERS),
    )
    .addOption(
      new Option('--on-shutdown-failure <policy>', 'what a failing shutdown of a driver means').choices(
        SHUTDOWN_FAILURE_POLICIES,
      ),
    )
    .addOption(
      new Option(
        '--late-writes <policy>',
        'memory that changes after its driver froze: cancel (the default), report, or off: nobody looks',
      ).choices(LATE_WRITE_POLICIES),
    )
    .option('--callback-limit <duration>', 'a callback that takes longer has hung; default: 30s', duration)
    .option('--predict-from <dir>', "an earlier run's --out: refuse a budget that cannot be met")
    .option('--budget <duration>', 'what the blackout may take, such as 50ms', duration)
    .addOption(new Option('--on-overrun <policy>', 'what happens when it takes longer').choices(OVERRUN_POLICIES))
    .option(
      '--seed <n>',
      'what is handed over depends on scenario and seed alone',
      wholeNumber(0, Number.MAX_SAFE_INTEGER),
    )
    .option('--kernel <file>', 'load this kernel (a bzImage) in prepare, for khorus kexec')
    .option('--initrd <file>', 'and this initrd')
    .option('--cmdline <text>', "its command line; default: the host's, with what the machine needs")
    .option('--out <dir>', 'write kho/out, ram.img and run.json there')
    .option('--force', 'replace what an earlier run wrote there')
    .addHelpText('after', example('run', 'run my-host.yaml --mode sequential', 'run --seed 7 --budget 500ms --out out'))
    .action(
      async (
        scenario: string | undefined,
        options: CommonOptions & RunCommandOptions & { budget?: number; predictFrom?: string },
      ) => {
        const { budget, predictFrom, ...rest } = options;
        if (options.force === true && options.out === undefined) {
          throw new KhoError('KHO_EINVAL', '--force replaces what --out names; give --out DIR too', { field: 'force' });
        }
        const earlier = predictFrom === undefined ? undefined : [phaseTimes((await recordOf(predictFrom)).timeline)];
        const overrides = { ...rest, ...(budget !== undefined && { blackout: budget }), ...(earlier && { earlier }) };
        exit(await runScenario(scenario, overrides, terminalOf(options), signal));
      },
    );

  common(program.command('inspect'))
    .argument(
      '<path>',
      'an FDT or other blob, a memory image (flat or ELF core), a directory of run --out, or - for a blob',
    )
    .description(
      'show and check what a handover holds: boot record, root FDT, sub-blobs, preserved memory, LUO, memfds',
    )
    .option('--trees', 'print every FDT as DTS with decoded values')
    .option('--boot-params <address>', 'where boot_params lie, instead of searching for them', address)
    .option('--root <address>', 'where a root FDT lies: read it without a boot record', address)
    .addOption(readAs())
    .option('--no-contents', 'read no contents: no digests of memfds and reserve_mem, no checksum of kho_test')
    .option('--extract <file>', "write an ELF core that holds the handover's own pages and no contents")
    .option('--force', 'replace the file that --extract names')
    .addHelpText(
      'after',
      example(
        'inspect out',
        'inspect out/kho/out/sub_fdts/netdevsim',
        'inspect ram.img --json',
        'inspect vmcore --boot-params 0x3bffd000',
        'inspect ram.img --extract handover.core',
        'inspect - < /sys/kernel/debug/kho/out/fdt',
      ),
    )
    .action(async (path: string, options: CommonOptions & InspectCommandOptions) => {
      exit(await inspectFile(path, options, terminalOf(options), signal));
    });

  common(program.command('dts'))
    .argument('<file>', 'an FDT, also cut short, or - for stdin')
    .description("print an FDT as dtc does, with KHO's native values decoded in comments")
    .option('--plain', "exactly dtc's text, without comments")
    .addHelpText(
      'after',
      example('dts out/kho/out/fdt', 'dts fdt --plain | diff - <(dtc -I dtb -O dts -q fdt)', 'dts - --json < fdt'),
    )
    .action(async (file: string, options: CommonOptions & { plain?: boolean }) => {
      exit(await printDts(file, options, terminalOf(options), signal));
    });

  common(program.command('kexec'))
    .argument('<dir>', 'a directory of run --out')
    .description('load a kernel into the scratch areas of the memory image; write what boots it, or boot it in QEMU')
    .option('--kernel <file>', 'a bzImage; default: what the run has loaded')
    .option('--initrd <file>', 'an initial RAM disk')
    .option('--cmdline <text>', "its command line; default: the host's. What the machine needs is added")
    .option('--qemu', 'boot it, stream its console, and say whether the handover arrived')
    .option(
      '--timeout <duration>',
      'how long the console may be silent; all may take ten times as long',
      duration,
      DEFAULT_SILENCE,
    )
    .option('--out <dir>', 'write ram.img, boot.rom and kexec.json there; default without --qemu: DIR/kexec')
    .option('--force', 'replace what an earlier kexec wrote there')
    .addHelpText(
      'after',
      example(
        'kexec out --kernel bzImage --initrd guest.cpio.gz --qemu',
        "kexec out --kernel bzImage --cmdline 'kho=on reserve_mem=1M:4096:trace' --out boot",
      ),
    )
    .action(async (directory: string, options: CommonOptions & KexecCommandOptions) => {
      exit(await kexecImage(directory, options, terminalOf(options), signal));
    });

  common(program.command('calibrate'))
    .description('measure what the modes cost on this machine, by which --mode auto chooses, and keep it')
    .option('--workers <n>', 'threads of the pool; default: one for each CPU', wholeNumber(1, WORKERS_MAX))
    .addHelpText('after', example('calibrate', 'calibrate --workers 4 --json'))
    .action(async (options: CommonOptions & { workers?: number }) => {
      exit(await calibrateMachine(options, terminalOf(options), signal));
    });

  common(program.command('capture'))
    .description('print this machine as a scenario: memory map, nodes, command line, PCI functions, network interfaces')
    .option('--from <dir>', "files that were copied from a machine; default: this machine's", directory)
    .option('--dir <dir>', 'copy the files there instead, for host: { from: DIR }; a new directory', directory)
    .option('--no-devices', 'leave PCI functions and network interfaces out')
    .option(
      '--guest-memory <size>',
      'of the memory, how much the scenario gives to guests: it has no bytes',
      guestMemory,
    )
    .option('--redact', 'leave out what may be secret: command line, MAC addresses, serial numbers')
    .addHelpText(
      'after',
      example(
        'capture > host.yaml',
        'capture --redact > host.yaml',
        'capture --dir my-server',
        'capture --from my-server',
      ),
    )
    .action((options: CommonOptions & CaptureCommandOptions) => {
      exit(captureMachine(options, terminalOf(options)));
    });

  common(program.command('chaos'))
    .argument('[scenario]', 'a YAML file, or - for stdin; default: random hosts, with drivers made for this')
    .description(
      'random faults at random points: every run must end handed over or rolled back, and leave nothing behind',
    )
    .option(
      '--seed <n>',
      'what happens depends on seed and scenario alone; default: 1',
      wholeNumber(0, Number.MAX_SAFE_INTEGER),
    )
    .option('--runs <n>', `how many; default: ${DEFAULT_CHAOS_RUNS}`, wholeNumber(1, 10_000_000))
    .option('--only <k>', 'the run of that number alone: to repeat one that failed', wholeNumber(0, 10_000_000))
    .option('--jobs <n>', 'processes at a time; default: one more than CPUs', wholeNumber(1, WORKERS_MAX))
    .addHelpText(
      'after',
      example('chaos --seed 7 --runs 500', 'chaos my-host.yaml', 'chaos my-host.yaml --seed 7 --only 41'),
    )
    .action(async (scenario: string | undefined, options: CommonOptions & ChaosCommandOptions) => {
      exit(await runChaos(scenario, options, terminalOf(options), signal));
    });

  common(program.command('profiles'))
    .description('the KHO ABIs that khorus speaks, and how they differ')
    .addHelpText('after', example('profiles', 'profiles --json'))
    .action((options: CommonOptions) => {
      printProfiles(terminalOf(options));
    });

  common(program.command('verify'))
    .argument('<dir>', 'a directory of run --out')
    .description('compare every digest with the memory image, and restore from it')
    .addOption(readAs())
    .addHelpText('after', example('verify out', 'verify out --profile kho-v1'))
    .action(async (directory: string, options: CommonOptions & VerifyCommandOptions) => {
      exit(await verifyOutput(directory, options, terminalOf(options), signal));
    });

  common(program.command('time'))
    .argument('<dir>', 'a directory of run --out')
    .description('where the time went: prepare, blackout, finish')
    .addHelpText('after', example('time out'))
    .action(async (directory: string, options: CommonOptions) => {
      const record = await recordOf(directory);
      const terminal = terminalOf(options);
      if (terminal.json) terminal.printJson({ ...timeReport(record) });
      else for (const line of timeLines(record)) terminal.print(line);
    });

  common(program.command('blame'))
    .argument('<dir>', 'a directory of run --out')
    .description('drivers by the time of their callbacks; the time they waited is apart')
    .option('--instances', 'each instance by itself')
    .addHelpText('after', example('blame out', 'blame out --instances | head'))
    .action(async (directory: string, options: CommonOptions & { instances?: boolean }) => {
      const record = await recordOf(directory);
      const terminal = terminalOf(options);
      const how = { instances: options.instances === true };
      if (terminal.json) terminal.printJson({ entries: blame(record, how) });
      else for (const line of blameLines(record, how)) terminal.print(line);
    });
  return program;
}

/** The options that every command has, and errors that throw instead of ending the process. */
function common(command: Command): Command {
  return command
    .option('--json', 'print one JSON document and nothing else')
    .option('-q, --quiet', 'print nothing but errors')
    .option('-v, --verbose', 'say more; show the stack of an error')
    .showHelpAfterError(`(khorus ${command.name()} --help shows what there is)`)
    .exitOverride();
}

/** For commands that read a handover. */
function readAs(): Option {
  return new Option(
    '--profile <profile>',
    'read it as a kernel does that speaks this KHO ABI alone; default: compatible and content tell',
  ).choices(PROFILE_NAMES);
}

function example(...lines: readonly string[]): string {
  return `\nExamples:\n${lines.map((line) => `  khorus ${line}`).join('\n')}`;
}

function wholeNumber(low: number, high: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || !Number.isSafeInteger(value) || value < low || value > high) {
      throw new InvalidArgumentError(`Expected a whole number from ${low} to ${high}.`);
    }
    return value;
  };
}

/** A physical address, in hexadecimal after 0x, else in decimal. */
function address(text: string): number {
  const value = Number(text);
  if (!/^(0x[0-9a-f]+|\d+)$/i.test(text) || value > PHYS_ADDR_MAX) {
    throw new InvalidArgumentError('Expected a physical address such as 0x3bffd000.');
  }
  return value;
}

function duration(text: string): number {
  return argument(() => checkedBudget(text));
}

function guestMemory(text: string): number {
  return argument(() => checkedGuestMemory(text));
}

function fdtMax(text: string): number {
  return argument(() => checkedFdtMax(text));
}

function directory(text: string): string {
  if (text === '') throw new InvalidArgumentError('expected the name of a directory');
  return text;
}

/** What a check of a scenario's field says of an option. */
function argument(check: () => number): number {
  try {
    return check();
  } catch (error) {
    throw new InvalidArgumentError(KhoError.from(error).message);
  }
}

async function recordOf(directory: string) {
  const record = await readRecord(join(directory, 'run.json'));
  if (record === undefined) {
    throw new KhoError(
      'KHO_ENOENT',
      `${directory} has no run.json; expected a directory that 'khorus run --out' wrote`,
      {
        file: directory,
      },
    );
  }
  return record;
}

/** Help and version are no errors; everything else that commander refuses is wrong usage. */
function usageExit(error: CommanderError, json: boolean, streams: Streams): number {
  if (error.exitCode === 0) return EXIT_DONE;
  if (json) {
    const message = error.message.replace(/^error: /, '');
    new Terminal(streams, { json }).fail(new KhoError('KHO_EINVAL', message));
  }
  return EXIT_USAGE;
}

/** `khorus … | head` is no error; a full disk behind stdout is one, and nothing more can be printed there. */
function ignoreClosedPipe(error: NodeJS.ErrnoException): void {
  if (error.code === 'EPIPE') return;
  process.stderr.write(`khorus: the output cannot be written: ${error.message}\n`);
  process.exitCode = 1;
  process.exit();
}
