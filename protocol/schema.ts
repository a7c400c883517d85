/**
 * Every JSON document of the protocol: its schema and its type from one source. json-schema.ts builds a
 * plain JSON Schema (2020-12) and its static type; ajv checks. openapi.yaml repeats the schemas for
 * readers of the contract, and the tests hold every answer against it.
 *
 * What ajv makes of the schemas that a backup or restore needs on either side stands in compiled-checks.ts: loading
 * ajv and compiling them takes 35 ms and 14 MB (measured). For the others it is loaded when the first one is needed.
 */
import { createRequire } from 'node:module'
import * as compiledChecks from './compiled-checks.ts'
import type { Id } from './id.ts'
import { type OptionalMember, type Schema, type Static, Type } from './json-schema.ts'
import { limits } from './limits.ts'
import { Problem, type ProblemCode } from './problem.ts'

const closed = { additionalProperties: false }
const IdSchema = Type.Unsafe<Id>({ type: 'string', pattern: '^(blake3|sha256):[0-9a-f]{64}$' })
const Count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
const Uint32 = Type.Integer({ minimum: 0, maximum: 0xffffffff })
/** Nanoseconds since 1970 as a decimal string: JSON numbers end at 2^53. */
const Nanoseconds = Type.String({ pattern: '^(0|-?[1-9][0-9]{0,19})$' })
const Base64 = Type.String({ pattern: '^[A-Za-z0-9+/]+={0,2}$', maxLength: 8192 })
const Timestamp = Type.String({ pattern: '^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?Z$' })

// -- file and directory objects -------------------------------------------------------------------

/** A chunk, or with `chunked` a further file object, and how many bytes of content it stands for. */
export const Part = Type.Object(
  { id: IdSchema, size: Count, chunked: Type.Optional(Type.Literal(true)) },
  closed,
)
export type Part = Static<typeof Part>

/** A file of more than one chunk. `digest` is the id of the whole content; inner lists go without. */
export const FileObject = Type.Object(
  {
    type: Type.Literal('file'),
    size: Count,
    digest: Type.Optional(IdSchema),
    parts: Type.Array(Part, { minItems: 1 }),
  },
  closed,
)
export type FileObject = Static<typeof FileObject>

const attributeFields = {
  /** Permission bits with setuid, setgid and sticky: 0 to 07777. */
  mode: Type.Integer({ minimum: 0, maximum: 0o7777 }),
  uid: Uint32,
  gid: Uint32,
  mtimeNs: Nanoseconds,
}
/** What an inode carries besides its content. */
export const Attributes = Type.Object(attributeFields, closed)
export type Attributes = Static<typeof Attributes>

const nameFields = {
  /** The name, when its bytes are UTF-8. Exactly one of `name` and `name64` is there. */
  name: Type.Optional(Type.String({ minLength: 1, maxLength: 1024 })),
  /** The name's bytes in base64, when they are not UTF-8. */
  name64: Type.Optional(Base64),
}
const inodeFields = {
  ...nameFields,
  ...attributeFields,
  link: Type.Optional(Type.String({ minLength: 1, maxLength: 64 })),
}

/** A regular file. `id` is its one chunk or, with `chunked`, its file object. */
export const FileEntry = Type.Object(
  {
    kind: Type.Literal('file'),
    ...inodeFields,
    id: IdSchema,
    size: Count,
    chunked: Type.Optional(Type.Literal(true)),
    /** The file had holes: restore leaves out blocks of zeros. */
    sparse: Type.Optional(Type.Literal(true)),
  },
  closed,
)
export const DirectoryEntry = Type.Object(
  { kind: Type.Literal('directory'), ...nameFields, ...attributeFields, id: IdSchema },
  closed,
)
export const SymlinkEntry = Type.Object(
  {
    kind: Type.Literal('symlink'),
    ...inodeFields,
    target: Type.Optional(Type.String({ minLength: 1, maxLength: 8192 })),
    target64: Type.Optional(Base64),
  },
  closed,
)
export const SpecialEntry = Type.Object(
  { kind: Type.Union([Type.Literal('fifo'), Type.Literal('socket')]), ...inodeFields },
  closed,
)
export const DeviceEntry = Type.Object(
  {
    kind: Type.Union([Type.Literal('character-device'), Type.Literal('block-device')]),
    ...inodeFields,
    major: Uint32,
    minor: Uint32,
  },
  closed,
)
const Entry = Type.Union([FileEntry, DirectoryEntry, SymlinkEntry, SpecialEntry, DeviceEntry])
export type FileEntry = Static<typeof FileEntry>
export type DirectoryEntry = Static<typeof DirectoryEntry>
export type SymlinkEntry = Static<typeof SymlinkEntry>
export type SpecialEntry = Static<typeof SpecialEntry>
export type DeviceEntry = Static<typeof DeviceEntry>
/** One thing in a directory. Hard links to one inode share the same `link`. */
export type Entry = FileEntry | DirectoryEntry | SymlinkEntry | SpecialEntry | DeviceEntry

/** A further directory object that holds a stretch of the entries, and how many they are in all. */
export const DirectoryPart = Type.Object({ id: IdSchema, entries: Count }, closed)
export type DirectoryPart = Static<typeof DirectoryPart>

/** A directory: its entries in order of their names' bytes, or the parts that hold them. */
export const DirectoryObject = Type.Union([
  Type.Object({ type: Type.Literal('directory'), entries: Type.Array(Entry) }, closed),
  Type.Object({ type: Type.Literal('directory'), parts: Type.Array(DirectoryPart, { minItems: 1 }) }, closed),
])
export type DirectoryObject =
  | { type: 'directory'; entries: Entry[] }
  | { type: 'directory'; parts: DirectoryPart[] }

// -- requests and answers --------------------------------------------------------------------------

export const MissingRequest = Type.Object({ ids: Type.Array(IdSchema) }, closed)
export type MissingRequest = Static<typeof MissingRequest>
export const MissingAnswer = Type.Object({ missing: Type.Array(IdSchema) }, closed)
export type MissingAnswer = Static<typeof MissingAnswer>
export const FetchRequest = Type.Object(
  { ids: Type.Array(IdSchema, { minItems: 1, maxItems: limits.maxFetchIds }) },
  closed,
)
export type FetchRequest = Static<typeof FetchRequest>

const StoredOrKnown = Type.Union([Type.Literal('stored'), Type.Literal('known')])
export const PutAnswer = Type.Object({ id: IdSchema, outcome: StoredOrKnown }, closed)
export type PutAnswer = Static<typeof PutAnswer>

/** `whole` says that everything below is here; otherwise `missing` lists what is not, at most 1,000. */
export const ObjectAnswer = Type.Object(
  { id: IdSchema, outcome: StoredOrKnown, whole: Type.Boolean(), missing: Type.Array(IdSchema) },
  closed,
)
export type ObjectAnswer = Static<typeof ObjectAnswer>

/** What became of each chunk of a batch, in the batch's order; `problems` has one entry per refused block, for the first thousand. */
export const BatchAnswer = Type.Object(
  {
    outcomes: Type.Array(Type.Union([StoredOrKnown, Type.Literal('refused')])),
    problems: Type.Array(Type.Object({ id: IdSchema, type: Type.String(), detail: Type.String() }, closed)),
  },
  closed,
)
export type BatchAnswer = Static<typeof BatchAnswer>

const Totals = Type.Object({ files: Count, directories: Count, bytes: Count }, closed)
export type Totals = Static<typeof Totals>
const About = Type.Record(Type.String({ pattern: '^.{1,64}$' }), Type.String({ maxLength: 4096 }), {
  maxProperties: 32,
  additionalProperties: false,
})
const CheckpointKind = Type.Union([Type.Literal('dir'), Type.Literal('chunks')])
export type CheckpointKind = Static<typeof CheckpointKind>

/** `about` is the client's to fill (host, path, …); the receiver keeps and shows it. */
export const OpenRequest = Type.Object({ kind: CheckpointKind, about: Type.Optional(About) }, closed)
export type OpenRequest = Static<typeof OpenRequest>

/**
 * A `dir` checkpoint names its root. A `chunks` checkpoint says how many items its list has, and may
 * name the root directory of the tree that the items hold.
 */
export const CommitRequest = Type.Object(
  {
    root: Type.Optional(IdSchema),
    attributes: Type.Optional(Attributes),
    items: Type.Optional(Count),
    totals: Type.Optional(Totals),
  },
  closed,
)
export type CommitRequest = Static<typeof CommitRequest>

export const CheckpointState = Type.Object(
  {
    source: Type.String(),
    number: Type.Integer({ minimum: 1 }),
    kind: CheckpointKind,
    state: Type.Union([Type.Literal('open'), Type.Literal('committed')]),
    openedAt: Timestamp,
    committedAt: Type.Optional(Timestamp),
    about: Type.Optional(About),
    root: Type.Optional(IdSchema),
    attributes: Type.Optional(Attributes),
    /** Items of a `chunks` checkpoint, and the content bytes that they stand for. */
    items: Type.Optional(Count),
    itemBytes: Type.Optional(Count),
    totals: Type.Optional(Totals),
    /** Only in the state of an open `chunks` checkpoint: items not here yet, at most 1,000. */
    missing: Type.Optional(Type.Array(IdSchema)),
    /** Neither retention nor anybody deletes it until the pin is taken off. Of a committed one only. */
    pinned: Type.Optional(Type.Literal(true)),
  },
  closed,
)
export type CheckpointState = Static<typeof CheckpointState>

export const CheckpointList = Type.Object({ checkpoints: Type.Array(CheckpointState) }, closed)
export type CheckpointList = Static<typeof CheckpointList>
export const SourceList = Type.Object({ sources: Type.Array(Type.String()) }, closed)
export type SourceList = Static<typeof SourceList>
export const VaultList = Type.Object({ vaults: Type.Array(Type.String()) }, closed)
export type VaultList = Static<typeof VaultList>

/** Items go in at position `first`, which is the list's length; or repeat what stands there already. */
export const ItemsRequest = Type.Object({ first: Count, items: Type.Array(Part, { minItems: 1 }) }, closed)
export type ItemsRequest = Static<typeof ItemsRequest>
export const ItemsAnswer = Type.Object({ total: Count, missing: Type.Array(IdSchema) }, closed)
export type ItemsAnswer = Static<typeof ItemsAnswer>
/** `next` is the position of the page that follows, absent on the last. */
export const ItemsPage = Type.Object(
  { first: Count, total: Count, items: Type.Array(Part), next: Type.Optional(Count) },
  closed,
)
export type ItemsPage = Static<typeof ItemsPage>

/** What 409 `missing-chunks` carries: each id, and the file or directory entry it is needed within. */
export const MissingChunk = Type.Object({ id: IdSchema, within: Type.Optional(IdSchema) }, closed)
export type MissingChunk = Static<typeof MissingChunk>

/** Asks a collection of the live tree to become a committed checkpoint. `source`: `tree` or `tree-a-b` when absent. */
export const FreezeRequest = Type.Object(
  {
    freeze: Type.Object(
      { source: Type.Optional(Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$' })) },
      closed,
    ),
  },
  closed,
)
export type FreezeRequest = Static<typeof FreezeRequest>

const TrashItem = Type.Object(
  {
    item: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
    /** Where it was below `tree/`, percent-encoded. */
    path: Type.String(),
    kind: Type.Union([Type.Literal('file'), Type.Literal('directory')]),
    /** Of a file only. */
    size: Type.Optional(Count),
    deletedAt: Timestamp,
    reason: Type.Union([Type.Literal('deleted'), Type.Literal('overwritten')]),
    /** It is kept at least until then. */
    expiresAt: Timestamp,
  },
  closed,
)
export type TrashItem = Static<typeof TrashItem>
export const TrashList = Type.Object({ items: Type.Array(TrashItem) }, closed)
export type TrashList = Static<typeof TrashList>

// -- retention ----------------------------------------------------------------------------------------

const Keep = Type.Integer({ minimum: 1, maximum: 1_000_000 })
/** What to keep of a source's checkpoints: what any of these keeps stays. server/upkeep/retention.ts says how. */
export const RetentionPolicy = Type.Object(
  {
    keepLast: Type.Optional(Keep),
    keepHourly: Type.Optional(Keep),
    keepDaily: Type.Optional(Keep),
    keepWeekly: Type.Optional(Keep),
    keepMonthly: Type.Optional(Keep),
    keepYearly: Type.Optional(Keep),
    /** `12h`, `30d`, `4w`, `6mo`, `1y`, back from the newest. */
    keepWithin: Type.Optional(Type.String({ pattern: '^[1-9][0-9]{0,3}(h|d|w|mo|y)$' })),
  },
  { ...closed, minProperties: 1 },
)
export type RetentionPolicy = Static<typeof RetentionPolicy>

const Retention = Type.Union([RetentionPolicy, Type.Literal('keep-all')])

/** What the receiver was told about one vault. */
export const VaultSettings = Type.Object(
  {
    /** Without it everything is kept. */
    retention: Type.Optional(RetentionPolicy),
    /** For these sources instead of `retention`. */
    sources: Type.Optional(
      Type.Record(Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$' }), Retention, {
        maxProperties: 10_000,
        additionalProperties: false,
      }),
    ),
    /** Whose days, weeks, … the policies mean, such as `Europe/Vienna`. Without it UTC. */
    timeZone: Type.Optional(Type.String({ minLength: 1, maxLength: 64 })),
    /** Stored bytes at most. Without it the disk is the bound. */
    quotaBytes: Type.Optional(Count),
  },
  closed,
)
export type VaultSettings = Static<typeof VaultSettings>

/** `dryRun`: tells what would be removed, and removes nothing. `source`: that one only. */
export const PruneRequest = Type.Object(
  { dryRun: Type.Optional(Type.Boolean()), source: Type.Optional(Type.String()) },
  closed,
)
export type PruneRequest = Static<typeof PruneRequest>

/** `unjudged`: it changed while the prune was at work. */
const KeepReason = Type.Union(
  [
    'newest',
    'pinned',
    'future',
    'keep-all',
    'last',
    'hourly',
    'daily',
    'weekly',
    'monthly',
    'yearly',
    'within',
    'unjudged',
  ].map((reason) => Type.Literal(reason)),
)
export type KeepReason =
  | 'newest'
  | 'pinned'
  | 'future'
  | 'keep-all'
  | 'last'
  | 'hourly'
  | 'daily'
  | 'weekly'
  | 'monthly'
  | 'yearly'
  | 'within'
  | 'unjudged'

export const PrunedSource = Type.Object(
  {
    source: Type.String(),
    retention: Retention,
    /** Both ascending. */
    kept: Type.Array(
      Type.Object(
        {
          number: Type.Integer({ minimum: 1 }),
          committedAt: Timestamp,
          reasons: Type.Array(Type.Unsafe<KeepReason>(KeepReason)),
        },
        closed,
      ),
    ),
    removed: Type.Array(
      Type.Object({ number: Type.Integer({ minimum: 1 }), committedAt: Timestamp }, closed),
    ),
  },
  closed,
)
export type PrunedSource = Static<typeof PrunedSource>

/** What a prune kept and removed; after a dry run, what it would have. */
export const PruneAnswer = Type.Object(
  { dryRun: Type.Boolean(), kept: Count, removed: Count, sources: Type.Array(PrunedSource) },
  closed,
)
export type PruneAnswer = Static<typeof PruneAnswer>

const Text = Type.Array(Type.String())
export const Capabilities = Type.Object(
  {
    product: Type.String(),
    version: Type.String(),
    protocol: Type.Integer({ minimum: 1 }),
    compliance: Text,
    hashAlgorithms: Text,
    encodings: Text,
    deltas: Text,
    limits: Type.Record(Type.String(), Count),
    freeBytes: Count,
    storedBytes: Count,
    chunks: Count,
    /** What `storedBytes` may come to. Absent when the disk is the bound. */
    quotaBytes: Type.Optional(Count),
  },
  closed,
)
export type Capabilities = Static<typeof Capabilities>

/**
 * `ok` and `degraded` answer 200, `failing` 503. What follows `version` is for whoever may read the metrics. `writable`
 * comes from a small write and fsync; `lastSyncAt` is absent until a store was made durable.
 */
export const Health = Type.Object(
  {
    status: Type.Union([Type.Literal('ok'), Type.Literal('degraded'), Type.Literal('failing')]),
    version: Type.String(),
    writable: Type.Optional(Type.Boolean()),
    freeBytes: Type.Optional(Count),
    /** What is kept free. */
    reserveBytes: Type.Optional(Count),
    lastSyncAt: Type.Optional(Timestamp),
    vaultsOpen: Type.Optional(Count),
    /** Those that could not be opened when they were last asked for. */
    vaultsUnopened: Type.Optional(
      Type.Array(Type.Object({ vault: Type.String(), code: Type.String() }, closed)),
    ),
    /** Those of which content is missing, or may be until a scrub has looked. */
    vaultsHarmed: Type.Optional(Type.Array(Type.String())),
    /** Of the disk, since the receiver started. */
    diskFaults: Type.Optional(Count),
    uptimeSeconds: Type.Optional(Count),
    /** The 99th percentile over the last minute or two. */
    eventLoopDelayMs: Type.Optional(Type.Number({ minimum: 0 })),
  },
  closed,
)
export type Health = Static<typeof Health>

// -- scrub --------------------------------------------------------------------------------------------

const JobOutcome = Type.Union([Type.Literal('done'), Type.Literal('stopped'), Type.Literal('failed')])

/** Something stored that is not what it should be. Without `offset` the whole pack is gone. */
const ScrubFinding = Type.Object(
  {
    pack: Count,
    offset: Type.Optional(Count),
    bytes: Type.Optional(Count),
    damage: Type.String(),
    foundAt: Timestamp,
    /** Chunks that were to be read there, those among them that there was another copy of. */
    lostChunks: Count,
    /** The bytes were copied into the vault's folder `quarantine/`. */
    quarantined: Type.Boolean(),
  },
  closed,
)
export type ScrubFinding = Static<typeof ScrubFinding>

/** Files and directories that cannot be read whole; the first paths of them, percent-encoded. */
const HarmedPaths = { count: Count, paths: Type.Array(Type.String()) }

/** What lacks something that it reaches. */
export const ScrubHarm = Type.Object(
  {
    /** When it was looked at. */
    at: Timestamp,
    missingChunks: Count,
    /** The first thousand. */
    checkpoints: Type.Array(
      Type.Object({ source: Type.String(), number: Type.Integer({ minimum: 1 }), ...HarmedPaths }, closed),
    ),
    /** Of the live tree and its trash; paths begin with `tree/` or `trash/`. */
    tree: Type.Optional(Type.Object(HarmedPaths, closed)),
  },
  closed,
)
export type ScrubHarm = Static<typeof ScrubHarm>

const scrubCounts = {
  /** Of the packs: read, and to be read. */
  bytes: Count,
  totalBytes: Count,
  records: Count,
  chunks: Count,
  badRecords: Count,
}

export const ScrubProgress = Type.Object(
  {
    /** All of it now, or the share that is due. */
    everything: Type.Boolean(),
    phase: Type.Union([Type.Literal('packs'), Type.Literal('index'), Type.Literal('checkpoints')]),
    ...scrubCounts,
  },
  closed,
)
export type ScrubProgress = Static<typeof ScrubProgress>

/** What a round has come to so far; a round reads everything once. */
export const ScrubReport = Type.Object(
  {
    startedAt: Timestamp,
    /** Everything has been read. */
    complete: Type.Boolean(),
    /** When a round before this one was complete. */
    lastCompleteAt: Type.Optional(Timestamp),
    ...scrubCounts,
    /** Rows of the index that pointed at nothing. */
    strayRows: Count,
    lostChunks: Count,
    healedChunks: Count,
    /** The first hundred. */
    found: Type.Array(ScrubFinding),
    harm: Type.Optional(ScrubHarm),
  },
  closed,
)
export type ScrubReport = Static<typeof ScrubReport>

/** Asks for a garbage collection. `minGarbage`: packs with at least this share of garbage are compacted, 0 to 1. */
export const CollectionRequest = Type.Object(
  {
    dryRun: Type.Optional(Type.Boolean()),
    minGarbage: Type.Optional(Type.Number({ minimum: 0, maximum: 1 })),
  },
  closed,
)
export type CollectionRequest = Static<typeof CollectionRequest>

const collectionCounts = {
  /** Committed checkpoints that were walked, and objects that were read. */
  checkpoints: Count,
  objects: Count,
  /** Bytes of all packs; how many of them are garbage, about; how many were given back; how many were written again for that. */
  storedBytes: Count,
  garbageBytes: Count,
  freedBytes: Type.Integer(),
  movedBytes: Count,
}

export const CollectionProgress = Type.Object(
  {
    phase: Type.Union([Type.Literal('mark'), Type.Literal('sweep')]),
    ...collectionCounts,
    /** To be compacted, and done. */
    packs: Count,
    packsDone: Count,
  },
  closed,
)
export type CollectionProgress = Static<typeof CollectionProgress>

export const CollectionReport = Type.Object(
  {
    ...collectionCounts,
    /** Compacted. */
    packs: Count,
    /** Of a dry run: about what would have been given back. */
    dueBytes: Count,
    dryRun: Type.Boolean(),
  },
  closed,
)
export type CollectionReport = Static<typeof CollectionReport>

/** What upkeep of a kind tells of itself: what runs, and what came of the run that ended last. */
function jobState<
  P extends Schema,
  R extends Schema,
  M extends Readonly<Record<string, Schema | OptionalMember>>,
>(progress: P, report: R, more: M) {
  const last = {
    startedAt: Timestamp,
    finishedAt: Timestamp,
    outcome: JobOutcome,
    detail: Type.Optional(Type.String()),
    report,
  }
  return Type.Object(
    {
      running: Type.Optional(Type.Object({ startedAt: Timestamp, progress }, closed)),
      last: Type.Optional(Type.Object(last, closed)),
      ...more,
    },
    closed,
  )
}

export const CollectionState = jobState(CollectionProgress, CollectionReport, {
  /** When the schedule begins the next one. */
  nextAt: Type.Optional(Timestamp),
})
export type CollectionState = Static<typeof CollectionState>

export const ScrubState = jobState(ScrubProgress, ScrubReport, {})
export type ScrubState = Static<typeof ScrubState>

// -- checking ---------------------------------------------------------------------------------------

export const ajvOptions = { allErrors: false, strict: true, strictTypes: false, coerceTypes: false } as const

/** As ajv makes it: `errors` tells why the last call returned false. */
interface Check {
  (value: unknown): boolean
  errors?: readonly { readonly instancePath?: string; readonly message?: string }[] | null
}

const checks = new WeakMap<Schema, Check>([
  [BatchAnswer, compiledChecks.BatchAnswer],
  [Capabilities, compiledChecks.Capabilities],
  [CheckpointList, compiledChecks.CheckpointList],
  [CheckpointState, compiledChecks.CheckpointState],
  [CommitRequest, compiledChecks.CommitRequest],
  [DirectoryObject, compiledChecks.DirectoryObject],
  [FetchRequest, compiledChecks.FetchRequest],
  [FileObject, compiledChecks.FileObject],
  [ItemsRequest, compiledChecks.ItemsRequest],
  [MissingAnswer, compiledChecks.MissingAnswer],
  [MissingRequest, compiledChecks.MissingRequest],
  [OpenRequest, compiledChecks.OpenRequest],
])

let ajv: { compile(schema: Schema): Check } | undefined

function compile(schema: Schema): Check {
  if (ajv === undefined) {
    const { Ajv2020 } = createRequire(import.meta.url)(
      'ajv/dist/2020.js',
    ) as typeof import('ajv/dist/2020.js')
    ajv = new Ajv2020(ajvOptions)
  }
  return ajv.compile(schema)
}

/**
 * `value` as the type of `schema`; Problem `code` (default `invalid-request`) that names the place
 * and the rule when it is not. Does not copy.
 */
export function check<S extends Schema>(
  schema: S,
  value: unknown,
  code: ProblemCode = 'invalid-request',
): Static<S> {
  let validate = checks.get(schema)
  if (validate === undefined) {
    validate = compile(schema)
    checks.set(schema, validate)
  }
  if (validate(value)) return value as Static<S>
  const [error] = validate.errors ?? []
  const place =
    error?.instancePath === undefined || error.instancePath === '' ? 'the body' : error.instancePath
  throw new Problem(code, `${place} ${error?.message ?? 'does not fit its schema'}`)
}

/** `text` as JSON of the type of `schema`; the same problems. */
export function parseJson<S extends Schema>(
  schema: S,
  text: string,
  code: ProblemCode = 'invalid-request',
): Static<S> {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new Problem(code, `the body is no JSON: ${(cause as SyntaxError).message}`, { cause })
  }
  return check(schema, value, code)
}
