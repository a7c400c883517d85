/** The command line without a process of its own. */
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { runCli } from '../../client/cli.ts'

export class Sink extends Writable {
  readonly pieces: Buffer[] = []
  override _write(piece: Buffer, _encoding: string, done: () => void): void {
    this.pieces.push(piece)
    done()
  }
  get text(): string {
    return Buffer.concat(this.pieces).toString('utf8')
  }
}

/** Runs one command in `folder`, with its state in `folder`/state or in `stateFolder`, and more of an environment. */
export async function runIn(
  folder: string,
  argv: readonly string[],
  stateFolder = join(folder, 'state'),
  more: Record<string, string> = {},
) {
  const [stdout, stderr] = [new Sink(), new Sink()]
  const code = await runCli(argv, {
    stdout,
    stderr,
    stderrIsTerminal: false,
    env: { HOME: folder, CHUNKDAV_STATE_DIR: stateFolder, ...more },
    workingFolder: folder,
    signal: new AbortController().signal,
  })
  return { code, out: stdout.text, err: stderr.text, bytes: Buffer.concat(stdout.pieces) }
}

/** What `--json` printed. */
export function events(out: string): Record<string, unknown>[] {
  return out
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
}
