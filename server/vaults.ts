import { statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { Mutex } from 'async-mutex'
import { isProblem, Problem, type ProblemCode } from '../protocol/problem.ts'
import { parseVaultName } from '../protocol/url.ts'
import { vaultNotFound } from './access/needs.ts'
import { type BallastUse, withBallast } from './ballast.ts'
import { type Catalog, openCatalog } from './catalog/catalog.ts'
import { makeFolderDurably } from './catalog/durable-file.ts'
import { type FileRecord, LiveTree } from './catalog/live-tree.ts'
import type { Wanted } from './catalog/wanted.ts'
import type { DiskRoom } from './disk-room.ts'
import { type FileLayer, nodeFiles } from './file-layer.ts'
import { boundedStore, type Room } from './store/bounded-store.ts'
import type { CollectableStore } from './store/collectable.ts'
import { Collector } from './upkeep/collect.ts'
import { gonePack } from './upkeep/gone-packs.ts'
import { Scrub } from './upkeep/scrub.ts'
import { Settings } from './upkeep/settings.ts'

/** One tenant's store: its own chunks, its own checkpoints, nothing shared with other vaults. */
export interface Vault {
  readonly name: string
  /** Its folder. */
  readonly path: string
  readonly store: CollectableStore
  readonly catalog: Catalog
  readonly settings: Settings
  readonly scrub: Scrub
  readonly collector: Collector
  /** Throws the Problem that kept it from opening: a damaged tree costs no checkpoint. */
  readonly tree: LiveTree
}

/** What counts against a vault's quota: its packs, and its checkpoints. */
export function storedBytesOf({ store, catalog }: Pick<Vault, 'store' | 'catalog'>): number {
  return store.usage.storedBytes + catalog.checkpoints.storedBytes
}

/** Whether a folder below `vaults/` can be a vault: a file system's own, such as lost+found, are none. */
export function isVaultName(name: string): boolean {
  try {
    parseVaultName(name)
    return true
  } catch (error) {
    if (isProblem(error, 'invalid-name')) return false
    throw error
  }
}

export interface VaultsOptions {
  readonly openStore: OpenStore
  /** Told of checkpoints, and of live trees, that cannot be read and are left out. */
  readonly onDamage?: (problem: Problem) => void
  /** How long live trees keep what was deleted or overwritten, in ms. */
  readonly trashMs: number
  /** Told when work in the background fails. */
  readonly onFault?: (error: unknown) => void
  /** What lies under all that must survive a crash, except the store, which `openStore` opens. */
  readonly files?: FileLayer
  /** Bytes that a scrub reads in a second, at most. */
  readonly scrubBytesPerSecond?: number | undefined
  /** Of the time, how much a collection may work: above 0, up to 1. */
  readonly upkeepShare?: number | undefined
  /** What is left of the disk; with it, stores are kept within it and within their vaults' quotas. */
  readonly room?: Room & Pick<DiskRoom, 'freeBytes' | 'freeForUpkeep' | 'isShort'>
  /** Gives up a little space that was held back for a full disk; false when there is none left. */
  readonly makeRoom?: (use: BallastUse) => Promise<boolean>
  /** Told when something was removed from a vault, so that some of what it stores may be garbage now. */
  readonly onRemoved?: (vault: string) => void
}

/** Opens the store that is kept in a vault's folder, creating it when there is none. */
export type OpenStore = (vaultPath: string) => Promise<CollectableStore>

/** A vault that is open, or about to be. */
interface Opened {
  readonly vault: Promise<OpenVault>
  /** Somebody needs it for longer than a visit. */
  kept: boolean
  visitors: number
  /** The vault, once it is open. */
  now?: OpenVault
  /** Nobody needs it any more. Never rejects. */
  closing?: Promise<void>
}

/**
 * The vaults below `{data}/vaults`. A vault is opened by the first request that needs it and stays open
 * until `close`; one that is only visited is closed when the last visitor leaves.
 */
export class Vaults {
  readonly path: string
  private readonly options: VaultsOptions
  private readonly files: FileLayer
  private readonly opened = new Map<string, Opened>()
  /** Vaults that could not be opened when they were last asked for, each with the code of what kept it. */
  readonly unopened = new Map<string, string>()
  private readonly inDoubt = new Set<string>()
  /** One collection at a time. */
  private readonly collecting = new Mutex()
  private closed = false

  private constructor(path: string, options: VaultsOptions) {
    this.path = path
    this.options = options
    this.files = options.files ?? nodeFiles
  }

  /** Opens the vaults of a data directory, which is there. */
  static async open(dataDir: string, options: VaultsOptions): Promise<Vaults> {
    const path = join(dataDir, 'vaults')
    await makeFolderDurably(path, options.files)
    return new Vaults(path, options)
  }

  /** Names of all vaults, in order. */
  async list(): Promise<string[]> {
    const names = (await this.files.names(this.path)).filter(isVaultName).sort()
    const found = await Promise.all(names.map((name) => this.files.stat(join(this.path, name))))
    return names.filter((_, place) => found[place]?.isFolder)
  }

  /** Creates a vault; durable on return. Problem `vault-exists`. */
  async create(name: string): Promise<void> {
    const isNew = await this.files.makeFolder(join(this.path, parseVaultName(name)))
    if (!isNew) throw new Problem('vault-exists', `there is a vault ${name} already`)
    await this.files.syncFolder(this.path)
  }

  /** The vault of this name, open. Problems `vault-not-found`, `unavailable` after `close`. */
  async get(name: string): Promise<Vault> {
    const opened = await this.enter(name, (opened) => {
      opened.kept = true
    })
    return await opened.vault
  }

  /**
   * Runs `work` on the vault and, when nobody else needs it, closes it again: for work on every vault there is.
   * The same problems.
   */
  async visit<T>(name: string, work: (vault: Vault) => Promise<T>): Promise<T> {
    const opened = await this.enter(name, (opened) => {
      opened.visitors++
    })
    try {
      return await work(await opened.vault)
    } finally {
      opened.visitors--
      await this.leave(name, opened)
    }
  }

  /** The vault, opened if need be; `note` is told of it before anybody else can close it. */
  private async enter(name: string, note: (opened: Opened) => void): Promise<Opened> {
    for (;;) {
      if (this.closed) throw new Problem('unavailable', 'the receiver is stopping')
      const opened = this.opened.get(name) ?? this.begin(name)
      if (opened.closing === undefined) {
        note(opened)
        return opened
      }
      await opened.closing
    }
  }

  private begin(name: string): Opened {
    const opened: Opened = { vault: this.openVault(parseVaultName(name)), kept: false, visitors: 0 }
    this.opened.set(name, opened)
    // Whatever kept it from opening may have passed by the next request.
    opened.vault.then(
      (vault) => {
        opened.now = vault
        this.noteDoubt(vault)
        this.unopened.delete(name)
      },
      (error: unknown) => {
        this.opened.delete(name)
        if (!isProblem(error, 'vault-not-found')) this.unopened.set(name, codeOf(error))
      },
    )
    return opened
  }

  /** To be called after something was removed for good: what only that referred to is garbage now. */
  noteRemoved(name: string): void {
    this.options.onRemoved?.(name)
  }

  /** The vaults that are open, without opening or keeping any. */
  openNow(): Vault[] {
    return [...this.opened.values()].flatMap(({ now }) => now ?? [])
  }

  /** Names of the vaults that lack content as far as is known, or may lack some until a scrub has looked. */
  harmed(): string[] {
    for (const vault of this.openNow()) this.noteDoubt(vault)
    return [...this.inDoubt].sort()
  }

  private noteDoubt({ name, scrub }: Vault): void {
    if (scrub.isInDoubt) this.inDoubt.add(name)
    else this.inDoubt.delete(name)
  }

  /** Closes the vault unless somebody needs it, or `close` does already. */
  private async leave(name: string, opened: Opened): Promise<void> {
    if (opened.kept || opened.visitors > 0 || this.opened.get(name) !== opened) return
    const ended = opened.vault
      .then((vault) => {
        this.noteDoubt(vault)
        return vault.close()
      })
      .finally(() => this.opened.delete(name))
    opened.closing = ended.catch(() => {})
    await ended
  }

  private async openVault(name: string): Promise<OpenVault> {
    const path = join(this.path, name)
    if ((await this.files.stat(path)) === undefined) {
      throw vaultNotFound(name)
    }
    // Whoever made it may have died before he synced this.
    await this.files.syncFolder(this.path)
    const settings = await Settings.open(path, this.options.onDamage, this.files)
    await this.lookForPacks(name, path)
    let checkpoints: Catalog['checkpoints'] | undefined
    const store = await this.openStore(path, settings, () => checkpoints?.storedBytes ?? 0)
    const expectSpace = (bytes: number): void => {
      if (this.options.room === undefined) return
      expectWithinQuota(settings.quotaBytes, store.usage.storedBytes + (checkpoints?.storedBytes ?? 0), bytes)
    }
    try {
      const catalog = await openCatalog(path, store, this.options.onDamage, this.files, expectSpace)
      checkpoints = catalog.checkpoints
      const openTree = (): Promise<LiveTree | Problem> => this.openTree(path, store, catalog)
      const whole = {
        store,
        catalog,
        get tree() {
          return opened.tree
        },
      }
      const { room } = this.options
      const collector = await Collector.open(path, whole, {
        share: this.options.upkeepShare,
        makeRoom: () => this.makeRoom('collect'),
        turn: this.collecting,
        ...(room && { freeBytes: () => room.freeForUpkeep() }),
        files: this.files,
        onFault: this.options.onFault,
      })
      const scrub = await Scrub.open({
        vaultPath: path,
        store,
        vault: whole,
        bytesPerSecond: this.options.scrubBytesPerSecond,
        onDamage: this.options.onDamage,
        files: this.files,
        onFault: this.options.onFault,
      })
      const opened = new OpenVault(
        { name, path, store, catalog, settings, scrub, collector },
        await openTree(),
        openTree,
      )
      return opened
    } catch (error) {
      await store.close()
      throw error
    }
  }

  /** The store opens without them, and knows nothing of them any more. */
  private async lookForPacks(name: string, path: string): Promise<void> {
    const pack = await gonePack(path, this.files)
    if (pack === undefined) return
    const text = `packs that the index of vault ${name} knew are gone or cut off, ${pack} among them: backups may lack content; run chunkdav check http://HOST:PORT/${name}`
    this.options.onDamage?.(new Problem('store-corrupt', text, { extensions: { vault: name, pack } }))
    await withBallast(
      () => this.makeRoom('open'),
      () => Scrub.doubt(path, this.files),
    )
  }

  private async openStore(
    path: string,
    settings: Settings,
    otherBytes: () => number,
  ): Promise<CollectableStore> {
    const { openStore, room } = this.options
    const store = await withBallast(
      () => this.makeRoom('open'),
      () => openStore(path),
    )
    return room === undefined
      ? store
      : boundedStore(store, { quotaBytes: () => settings.quotaBytes, otherBytes, room })
  }

  /** On a full disk: gives up a little space that was held back for this; false when there is none left. */
  private async makeRoom(use: BallastUse): Promise<boolean> {
    return (await this.options.makeRoom?.(use)) ?? false
  }

  /** Bytes that are free for new content, by the disk alone. */
  async freeBytes(): Promise<number> {
    const { room } = this.options
    if (room !== undefined) return await room.freeBytes()
    const { bavail, bsize } = await statfs(this.path)
    return bavail * bsize
  }

  /** Before small things are written for a client that are no content. Problem `insufficient-storage`. */
  async expectRoom(): Promise<void> {
    const { room } = this.options
    if (room === undefined || !(await room.isShort())) return
    const text = 'the disk of the receiver is nearly full: what is left is kept for commits and deletions'
    throw new Problem('insufficient-storage', text, { extensions: { reserveBytes: room.reserveBytes } })
  }

  private async openTree(
    path: string,
    store: CollectableStore,
    { closure }: Catalog,
  ): Promise<LiveTree | Problem> {
    const expectHere = async (files: readonly FileRecord[]): Promise<void> => {
      if (!store.isCollecting) return
      const wanted = files.map(
        ({ id, size, chunked }): Wanted => ({ id, size, as: chunked ? 'file' : 'chunk', within: id }),
      )
      const [gone] = await closure.incomplete(wanted, 1)
      if (gone !== undefined)
        throw new Problem('conflict', `the content of a file was removed meanwhile (${gone})`)
    }
    try {
      return await withBallast(
        () => this.makeRoom('open'),
        () => LiveTree.open(join(path, 'tree'), store, { ...this.options, expectHere }),
      )
    } catch (error) {
      const isLeftOut = isProblem(error) && treeFaults.has(error.code)
      if (!isLeftOut) throw error
      this.options.onDamage?.(error)
      return error
    }
  }

  /** Makes everything durable and releases it. Idempotent. Rejects when a store could not be closed well. */
  async close(): Promise<void> {
    this.closed = true
    const vaults = await Promise.allSettled([...this.opened.values()].map(({ vault }) => vault))
    this.opened.clear()
    const open = vaults.flatMap((vault) => (vault.status === 'fulfilled' ? [vault.value] : []))
    const ends = await Promise.allSettled(open.map((vault) => vault.close()))
    for (const end of ends) if (end.status === 'rejected') throw end.reason
  }
}

function expectWithinQuota(quotaBytes: number | undefined, storedBytes: number, bytes: number): void {
  if (quotaBytes === undefined || storedBytes + bytes <= quotaBytes) return
  const text = `the vault is full: its quota is ${quotaBytes} bytes, and it holds ${storedBytes}`
  throw new Problem('insufficient-storage', text, { extensions: { quotaBytes, storedBytes } })
}

function codeOf(error: unknown): string {
  if (isProblem(error)) return error.code
  return (error as NodeJS.ErrnoException | undefined)?.code ?? 'internal-error'
}

/** What keeps a live tree from opening, but not the vault: its checkpoints must be there also when the disk is full. */
const treeFaults: ReadonlySet<ProblemCode> = new Set(['store-corrupt', 'insufficient-storage', 'unavailable'])

class OpenVault implements Vault {
  readonly name: string
  readonly path: string
  readonly store: CollectableStore
  readonly catalog: Catalog
  readonly settings: Settings
  readonly scrub: Scrub
  readonly collector: Collector
  private liveTree: LiveTree | Problem
  private readonly openTree: () => Promise<LiveTree | Problem>
  private opening: Promise<void> | undefined

  constructor(
    { name, path, store, catalog, settings, scrub, collector }: Omit<Vault, 'tree'>,
    tree: LiveTree | Problem,
    openTree: () => Promise<LiveTree | Problem>,
  ) {
    this.name = name
    this.path = path
    this.store = store
    this.catalog = catalog
    this.settings = settings
    this.scrub = scrub
    this.collector = collector
    this.liveTree = tree
    this.openTree = openTree
  }

  get tree(): LiveTree {
    if (!(this.liveTree instanceof Problem)) return this.liveTree
    // What is damaged stays so. Anything else may have passed by the next request.
    if (this.liveTree.code !== 'store-corrupt') this.opening ??= this.openAgain()
    throw this.liveTree
  }

  private async openAgain(): Promise<void> {
    try {
      this.liveTree = await this.openTree()
    } catch (error) {
      if (!isProblem(error)) throw error
      this.liveTree = error
    } finally {
      this.opening = undefined
    }
  }

  async close(): Promise<void> {
    await this.opening
    await Promise.all([this.scrub.close(), this.collector.close()])
    try {
      if (!(this.liveTree instanceof Problem)) await this.liveTree.close()
    } finally {
      await this.store.close()
    }
  }
}
