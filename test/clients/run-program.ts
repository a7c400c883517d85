/** Running other people's programs. */
import { type SpawnOptions, spawn } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'

/** /sbin is where mount.davfs is, and not in everybody's path. */
const searchPath = `${process.env.PATH ?? ''}${delimiter}/usr/sbin${delimiter}/sbin`

export function isInstalled(program: string): boolean {
  return searchPath.split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK)
      return true
    } catch (error) {
      if (error instanceof Error && 'code' in error) return false
      throw error
    }
  })
}

export interface Ran {
  readonly code: number | null
  readonly stdout: Buffer
  readonly stderr: string
  /** Both, in no certain order: for looking at what went wrong. */
  readonly output: string
}

export interface RunOptions {
  readonly cwd?: string
  /** Beside PATH; nothing else of our own environment is handed on, so that no proxy or configuration is. */
  readonly env?: Readonly<Record<string, string>>
  readonly input?: string | Buffer
}

/** Runs a program to its end, whatever its exit code is. */
export async function runAnyhow(
  program: string,
  args: readonly string[],
  { cwd, env, input }: RunOptions = {},
): Promise<Ran> {
  const options: SpawnOptions = { env: { PATH: searchPath, LC_ALL: 'C.UTF-8', ...env } }
  if (cwd !== undefined) options.cwd = cwd
  const child = spawn(program, args, { ...options, stdio: ['pipe', 'pipe', 'pipe'] })
  const [stdout, stderr]: [Buffer[], Buffer[]] = [[], []]
  child.stdout?.on('data', (piece: Buffer) => stdout.push(piece))
  child.stderr?.on('data', (piece: Buffer) => stderr.push(piece))
  // A program that ends before it has read its input is judged by its exit code.
  child.stdin?.on('error', () => {})
  child.stdin?.end(input)
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  const errors = Buffer.concat(stderr).toString()
  const bytes = Buffer.concat(stdout)
  return { code, stdout: bytes, stderr: errors, output: `${bytes.toString()}${errors}` }
}

/** Runs a program that must succeed; the error shows what it printed. */
export async function run(program: string, args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const ran = await runAnyhow(program, args, options)
  if (ran.code !== 0)
    throw new Error(`${program} ${args.join(' ')} ended with ${ran.code}:\n${ran.output.slice(-6000)}`)
  return ran
}
