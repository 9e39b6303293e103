import ora from 'ora';
import type { ProgressEvent } from '../coordinator/index.js';
import type { Terminal } from './terminal.js';

/** Shows how far a run is, on a terminal; in a pipe it does nothing. Disposing of it clears the line. */
export class Progress implements Disposable {
  readonly #spinner: ReturnType<typeof ora> | undefined;

  constructor(terminal: Terminal) {
    if (terminal.showsProgress) this.#spinner = ora({ text: 'prepare', discardStdin: false }).start();
  }

  readonly report = ({ phase, done, total }: ProgressEvent): void => {
    if (this.#spinner !== undefined) this.#spinner.text = `${phase} ${done}/${total}`;
  };

  [Symbol.dispose](): void {
    this.#spinner?.stop();
  }
}
