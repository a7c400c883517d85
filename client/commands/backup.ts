/** `chunkdav backup SRC… URL` */
import { readFile, stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import { setInterval } from 'node:timers'
import { type Command, InvalidArgumentError, Option } from 'commander'
import prettyBytes from 'pretty-bytes'
import { Problem } from '../../protocol/problem.ts'
import { parseSourceName } from '../../protocol/url.ts'
import type { CheckpointDatabase } from '../engine/checkpoint-database.ts'
import type { BackupSummary } from '../engine/engine.ts'
import { type FileTarget, isFileTarget } from '../engine/file-target.ts'
import type { Source } from '../engine/source.ts'
import type { Target } from '../engine/target.ts'
import { createProgress, duration } from '../progress.ts'
import { LocalDirSource } from '../sources/local-dir-source.ts'
import { stopScanThread } from '../sources/scan-thread.ts'
import { isWebDavUrl, parseWebDavUrl } from '../targets/webdav-url.ts'
import { tuneForWork } from '../v8-tuning.ts'
import { parseVaultUrl } from '../vault-url.ts'
import type { CommandContext } from './context.ts'
import { databaseFolder, ownStatePatterns } from './own-state.ts'
import { grouped, plural, reasonOf, tellProblem } from './report.ts'
import { defaultSourceName } from './source-name.ts'
import { jsonProgressOption, passwordHint } from './vault-command.ts'

interface BackupOptions {
  readonly source?: string
  readonly as: 'dir' | 'chunks'
  readonly scanFirst: boolean
  readonly verifyContent: boolean
  readonly exclude: string[]
  readonly excludeFrom: string[]
  readonly excludeCaches: boolean
  readonly oneFileSystem: boolean
  readonly uploads: number
  readonly compression: number
  readonly name?: string
  readonly json: boolean
}

const examples = `
Examples:
  chunkdav backup ~/documents http://127.0.0.1:8420/home
  chunkdav backup /etc /srv http://127.0.0.1:8420/servers --source web1 --exclude '*.log'
  pg_dump shop | chunkdav backup - http://127.0.0.1:8420/dumps --source shop --name shop.sql
  chunkdav backup /dev/vg0/data http://127.0.0.1:8420/images --as chunks
  chunkdav backup ~/documents webdav+https://alice@dav.example.org/backups

URL is http://HOST:PORT/VAULT; the vault is made at its first backup. With webdav+https:// (or webdav+http://) it
is a folder on any WebDAV server, where the backup is kept as plain files. Where a user is asked for, write
http://USER@HOST and so on; the password comes from CHUNKDAV_PASSWORD, or stands in the URL. Of a receiver a token will do,
in CHUNKDAV_TOKEN, without a user in the URL: the right append-only is enough.

A backup that was interrupted goes on where it was when it is run again. chunkdav's own state is left out: the
databases in which it remembers what it has sent. Exit codes: 0 all done, 1 failed, 2 wrong usage, 3 done, but
some files could not be read (each is listed).`

const excludeHelp =
  'leave out what matches, as in .gitignore; a pattern with a slash is relative to the directory that is ' +
  'backed up, of several paths to the root that holds them by their last names (repeatable)'

const verifyHelp =
  'read every file, even those whose size and times are unchanged; on a WebDAV server this also replaces files ' +
  'that were damaged there'

/** Adds `backup` to the program. */
export function registerBackup(program: Command, context: CommandContext): void {
  program
    .command('backup')
    .usage('[options] <path...> <url>')
    .description('Back up files, directories, a block device, or standard input')
    .argument('<path...>', 'what to back up (- is standard input), then the URL of the vault')
    .option('--source <name>', 'what the backup is filed under (default: host name and path)')
    .addOption(
      new Option('--as <form>', 'how it is kept: a tree of directories, or a list of chunks')
        .choices(['dir', 'chunks'])
        .default('dir'),
    )
    .option('--scan-first', 'count everything before the first byte is read', false)
    .option('--verify-content', verifyHelp, false)
    .option('--exclude <pattern>', excludeHelp, collect, [])
    .option('--exclude-from <file>', 'patterns from a file, one a line (repeatable)', collect, [])
    .option('--exclude-caches', 'leave out what is in directories that hold a CACHEDIR.TAG', false)
    .option('--one-file-system', 'do not cross into other file systems', false)
    .option('--uploads <n>', 'requests in flight', wholeNumber(1, 64), 4)
    .option('--compression <level>', 'zstd level 1 to 19, or 0 for none', wholeNumber(0, 19), 1)
    .option('--name <name>', 'what a stream is called inside the backup (default: stdin, or the file name)')
    .option(...jsonProgressOption, false)
    .addHelpText('after', examples)
    .action((paths: string[], options: BackupOptions) => backup(paths, options, context))
}

function collect(value: string, before: string[]): string[] {
  return [...before, value]
}

function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const number = Number(text)
    if (Number.isInteger(number) && number >= least && number <= most) return number
    throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`)
  }
}

async function backup(args: string[], options: BackupOptions, context: CommandContext): Promise<void> {
  const url = args.at(-1) as string
  const paths = args.slice(0, -1)
  if (paths.length === 0)
    throw new Problem('usage', 'name what to back up, then the URL of the vault; see chunkdav backup --help')
  if (paths.includes('')) throw new Problem('usage', 'one of the paths is empty')
  const { stateFolder } = context
  if (stateFolder === undefined)
    throw new Problem(
      'usage',
      'this user has no home folder to remember backups in; CHUNKDAV_STATE_DIR may name another folder',
    )
  const place = openPlace(url, options, context)
  const name = parseSourceName(
    options.source ?? defaultSourceName(context.hostName, context.workingFolder, paths),
  )
  // First, and what follows is loaded behind it.
  await using source = disposable(await openSource(paths, options, stateFolder, context))
  const { CheckpointDatabase } = await import('../engine/checkpoint-database.ts')
  await using target = disposable(await place.target(name))
  const folder = databaseFolder(stateFolder, place, name, place.form)
  await using database = disposable(await CheckpointDatabase.open(folder))
  const summary = await runEngine(source.value, target.value, database.value, options, context)
  const isStream = source.value.capabilities.form === 'chunks'
  if (paths[0] === '-' && summary.bytes === 0) {
    context.warn('standard input was empty; was the command before the pipe successful?')
  }
  tell(summary, { isStream, keptAsFiles: isFileTarget(target.value) }, place, options, context)
  if (summary.problemCount > 0) context.exitWith(3)
}

function disposable<T extends { close(): Promise<void> }>(value: T): AsyncDisposable & { readonly value: T } {
  return { value, [Symbol.asyncDispose]: () => value.close() }
}

async function openSource(
  paths: readonly string[],
  options: BackupOptions,
  stateFolder: string,
  context: CommandContext,
): Promise<Source> {
  const [path] = paths as [string]
  if (paths.includes('-') && paths.length > 1)
    throw new Problem('usage', 'standard input must be the only thing to back up')
  if (paths.length === 1 && (path === '-' || (await isStream(resolve(context.workingFolder, path))))) {
    await stopScanThread()
    const { ChunkSource } = await import('../sources/chunk-source.ts')
    return ChunkSource.open(
      path === '-' ? path : resolve(context.workingFolder, path),
      options.name === undefined ? {} : { name: options.name },
    )
  }
  const patterns = [...options.exclude]
  for (const file of options.excludeFrom)
    patterns.push(...(await patternsFrom(resolve(context.workingFolder, file))))
  const { excludeCaches: caches, oneFileSystem } = options
  const absolute = paths.map((each) => resolve(context.workingFolder, each))
  // Last, so that no pattern takes it back.
  patterns.push(...(await ownStatePatterns(stateFolder, absolute)))
  const source = await LocalDirSource.open(absolute, { patterns, caches, oneFileSystem })
  // Everything else is loaded, and the receiver asked, while the thread is at work.
  source.scanAhead()
  return source
}

/** Anything but a directory is backed up as one stream. What is not there is the source's to complain about. */
async function isStream(path: string): Promise<boolean> {
  try {
    return !(await stat(path)).isDirectory()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === undefined) throw error
    return false
  }
}

async function patternsFrom(file: string): Promise<string[]> {
  try {
    return (await readFile(file, 'utf8')).split(/\r?\n/)
  } catch (cause) {
    throw new Problem('usage', `cannot read the patterns in ${file}: ${reasonOf((cause as Error).message)}`, {
      cause,
    })
  }
}

/** Where a backup goes. */
interface Place {
  readonly origin: string
  readonly vault: string
  readonly form: string
  /** The URL without user and password. */
  readonly shown: string
  /** The URL without the password. */
  readonly withUser: string
  target(source: string): Promise<Target | FileTarget>
}

/** The place at `url`; nothing is opened yet. */
function openPlace(
  url: string,
  { as, uploads: lanes, compression }: BackupOptions,
  { login }: CommandContext,
): Place {
  if (isWebDavUrl(url)) {
    if (as === 'chunks') {
      throw new Problem('usage', 'a WebDAV server keeps files, not chunks; leave --as chunks away')
    }
    const location = parseWebDavUrl(url, login.password)
    const { origin, folder: vault, shown, withUser } = location
    const target = async (source: string): Promise<FileTarget> => {
      const [{ WebDavClient }, { WebDavTarget }] = await Promise.all([
        import('../targets/webdav-client.ts'),
        import('../targets/webdav-target.ts'),
      ])
      // Large files are streamed beside what the lanes do.
      return new WebDavTarget(new WebDavClient(location, { connections: lanes + 4 }), source, { lanes })
    }
    return { origin, vault, form: 'files', shown, withUser, target }
  }
  const location = parseVaultUrl(url, login)
  const uploads = { lanes, compressionLevel: compression }
  const target = async (source: string): Promise<Target> => {
    const [{ ReceiverClient }, { DirTarget }, { ChunkTarget }] = await Promise.all([
      import('../receiver-client.ts'),
      import('../targets/dir-target.ts'),
      import('../targets/chunk-target.ts'),
    ])
    const client = new ReceiverClient(location, { connections: lanes + 2 })
    return as === 'dir' ? new DirTarget(client, source, uploads) : new ChunkTarget(client, source, uploads)
  }
  const { origin, vault, shown, withUser } = location
  return { origin, vault, form: as, shown, withUser, target }
}

async function runEngine(
  source: Source,
  target: Target | FileTarget,
  database: CheckpointDatabase,
  options: BackupOptions,
  context: CommandContext,
): Promise<BackupSummary> {
  const json = options.json ? context.emit : undefined
  const progress = createProgress({ stream: context.stderr, isTTY: context.stderrIsTerminal, json })
  const { Engine } = await import('../engine/engine.ts')
  const engine = new Engine(source, target, database, {
    scanFirst: options.scanFirst,
    verifyContent: options.verifyContent,
    signal: context.signal,
    onProblem: (problem) => tellProblem(problem, options, context),
  })
  tuneForWork()
  const timer = setInterval(() => {
    const { settled, seen, scanned } = engine.progress
    progress.update({
      filesDone: settled.files,
      bytesDone: settled.bytes,
      ...(scanned ? { filesTotal: seen.files } : {}),
      // Of a stream nobody knows how long it is.
      ...(scanned && seen.bytes > 0 && seen.bytes >= settled.bytes ? { bytesTotal: seen.bytes } : {}),
    })
  }, 200)
  try {
    return await engine.run()
  } finally {
    clearInterval(timer)
    progress.stop()
  }
}

function tell(
  summary: BackupSummary,
  { isStream, keptAsFiles }: { isStream: boolean; keptAsFiles: boolean },
  place: Place,
  { as, json }: BackupOptions,
  context: CommandContext,
): void {
  const { checkpoint, problems: _, problemCount: problems, durationMs, ...counts } = summary
  const { source, number } = checkpoint
  if (json) {
    const durationSeconds = Math.round(durationMs) / 1000
    context.emit({ type: 'summary', ...counts, source, checkpoint: number, problems, durationSeconds })
    return
  }
  context.say(`Checkpoint ${number} of ${source} is committed${summary.resumed ? ' (gone on with)' : ''}.`)
  const files =
    `  files  ${grouped(summary.filesNew)} new, ${grouped(summary.filesChanged)} changed, ${grouped(summary.filesUnmodified)} unmodified; ` +
    `${plural(summary.directories, 'directory', 'directories')}, ${prettyBytes(summary.bytes)} in all`
  context.say(isStream ? `  stream ${prettyBytes(summary.bytes)}` : files)
  context.say(
    `  data   ${prettyBytes(summary.bytesRead)} read, ${prettyBytes(summary.bytesSent)} sent, ` +
      (keptAsFiles
        ? plural(summary.requests, 'request')
        : `${prettyBytes(summary.bytesStored)} stored; ` +
          `${plural(summary.chunksReused, 'chunk was', 'chunks were')} there already`),
  )
  context.say(`  time   ${duration(durationMs / 1000)}`)
  if (problems > 0) {
    context.warn(`${plural(problems, 'path')} could not be backed up rightly; each is listed above`)
  }
  context.say(
    `Restore it with: ${context.program} restore ${place.withUser} --source ${source} --to ${isStream && as === 'chunks' ? 'FILE' : 'DIR'}`,
  )
  passwordHint(place, context)
}
