#!/usr/bin/env node
import { runCommand } from './command.js';

process.exitCode = await runCommand(process.argv.slice(2), { stdout: process.stdout, stderr: process.stderr });
// Threads and handles are gone by now; what is left of stdout drains before the process ends by itself.
