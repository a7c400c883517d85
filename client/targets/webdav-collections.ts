/** The collections of an open checkpoint: made when they are needed, each once. */
import { LRUCache } from 'lru-cache'
import { isProblem } from '../../protocol/problem.ts'
import type { WebDavClient } from './webdav-client.ts'

const maxKnownCollections = 20_000

/** Collections that are there, or being made. A parent is made before what is in it. */
export class Collections {
  readonly #client: WebDavClient
  readonly #made = new LRUCache<string, Promise<void>>({ max: maxKnownCollections })
  /** An interrupted run may have left a file where a collection must be now. */
  leftovers = false

  constructor(client: WebDavClient) {
    this.#client = client
  }

  /** Resolves when the collection at `path`, below the collection `top`, is there. `top` itself is. */
  async ensure(top: string, path: string): Promise<void> {
    if (path === top) return
    const known = this.#made.get(path)
    if (known !== undefined) return known
    const making = this.#make(top, path)
    this.#made.set(path, making)
    // Whoever comes next shall try it again.
    making.catch(() => this.#made.delete(path))
    return making
  }

  async #make(top: string, path: string): Promise<void> {
    await this.ensure(top, path.slice(0, path.lastIndexOf('/', path.length - 2) + 1))
    try {
      if ((await this.#client.makeCollection(path)) || !this.leftovers) return
      if (!(await this.#clearWay(path))) return
    } catch (error) {
      // Apache has another status than 405 for it.
      if (!this.leftovers || !isRefusal(error) || !(await this.#clearWay(path))) throw error
    }
    await this.#client.makeCollection(path)
  }

  /** Removes a file that stands where a collection must be; false when none does. */
  async #clearWay(path: string): Promise<boolean> {
    const file = path.slice(0, -1)
    return (await this.#client.kindAt(file)) === 'file' && this.#client.remove(file)
  }

  /** It is there, without our doing. */
  add(path: string): void {
    this.#made.set(path, Promise.resolve())
  }

  /** It, and what is below it, may be gone. */
  forget(path: string): void {
    for (const key of this.#made.keys()) if (key.startsWith(path)) this.#made.delete(key)
  }
}

/** What the server has against one path, and no other. */
export function isRefusal(error: unknown): boolean {
  const status = isProblem(error) ? error.extensions.status : undefined
  return typeof status === 'number' && status >= 400 && status < 500 && status !== 401 && status !== 429
}
