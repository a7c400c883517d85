/** What the areas that WebDAV sees have in common for reading: the tree, its trash, and the snapshots. */
import type { Part } from '../../protocol/schema.ts'
import type { PropertyName, PropertyValue } from '../http/dav-xml.ts'

/** Path below an area's own; none for the area itself. */
export type Names = readonly Buffer[]

/** A file or collection as WebDAV shows it. */
export interface Shown {
  readonly kind: 'file' | 'directory'
  /** Empty for the area itself. */
  readonly name: Buffer
  readonly mtimeNs: string
  readonly createdNs?: string
  /** With its quotes; strong. */
  readonly etag?: string
  /** The content; every file has it. Its size is what counts where the view reads the content itself. */
  readonly part?: Part
  /** The view's own. */
  readonly extra?: unknown
}

export interface DavView {
  /** What stands there; undefined when nothing does. Problem `invalid-request` for a name that nothing can have. */
  find(names: Names, signal: AbortSignal): Promise<Shown | undefined>
  /** What a directory holds, in order of names' bytes where there is one, one consistent state of it. */
  members(shown: Shown, signal: AbortSignal): AsyncIterable<Shown>
  /**
   * Properties beyond those that `Shown` tells, or in their stead: those of `wanted` that there are, or for
   * undefined (allprop, propname) those that RFC 4918 defines, and the dead ones.
   */
  properties(
    names: Names,
    shown: Shown,
    wanted: ReadonlySet<PropertyName> | undefined,
  ): Promise<ReadonlyMap<PropertyName, PropertyValue>>
  /** Reads what is no single part: bytes from `start` to `end`, exclusive. Absent: the part is read. */
  content?(shown: Shown, range: { start: number; end: number }, signal: AbortSignal): AsyncIterable<Buffer>
}
