/** What a tool must tell to be measured beside the others. */
import type { ServedRepository, Servers } from './served-repository.ts'
import type { Command } from './timed-program.ts'

export interface Place {
  /** An empty folder, removed afterwards. */
  readonly scratch: string
  /** No other place with the same servers has it. */
  readonly round: number
  readonly servers: Servers
  /** Counts what goes over the wire; slower, so that such a run is not timed. */
  readonly isCounted: boolean
}

export interface Restore {
  readonly command: Command
  /** Where the tree stands afterwards. */
  readonly tree: string
}

export interface Repository extends AsyncDisposable {
  /** What the client talks to; a tool that writes files itself has none. */
  readonly served?: ServedRepository
  backup(source: string): Command
  /** Of the newest backup. */
  restore(source: string): Restore
  /** The files and folders that the backups are kept in. */
  kept(): readonly string[]
}

export interface Peer {
  readonly name: string
  /** Programs that must be there, each with the Debian package that has it. */
  readonly programs: Readonly<Record<string, string>>
  /** How it is run, in Markdown, for the report. */
  readonly usage: string
  /** What of a file comes back: everything, or its bytes alone. */
  readonly keeps: 'everything' | 'content'
  version(): Promise<string>
  /** Makes an empty repository in a place, served where that is how it is done. */
  open(place: Place): Promise<Repository>
}
