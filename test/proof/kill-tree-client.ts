/** A client of a kill proof that also changes the live tree, by WebDAV, and freezes it. */
import { TreeClient } from '../../client/tree-client.ts'
import { parseVaultUrl } from '../../client/vault-url.ts'
import { isProblem, Problem } from '../../protocol/problem.ts'
import { isInterruption, KillClient, type KillClientOptions } from './kill-client.ts'
import { content, digest } from './kill-content.ts'

/** Files by path, with the digest of each; folders end in a slash. */
type Tree = ReadonlyMap<string, string>

interface Change {
  readonly method: 'PUT' | 'DELETE' | 'MOVE' | 'COPY' | 'MKCOL'
  readonly path: string
  readonly to?: string
  readonly body?: Buffer
  readonly after: Tree
}

const folders = ['a/', 'b/', 'c/', 'a/in/']
const names = ['x', 'y', 'z']
export const frozenSource = 'frozen'

export class KillTreeClient extends KillClient {
  readonly #treeClient: TreeClient
  readonly #url: string
  #tree: Tree = new Map()
  /** What it may be instead: a change was asked for and not answered. */
  #otherwise: Tree | undefined

  constructor(options: KillClientOptions) {
    super(options)
    this.#url = `${options.vaultUrl}/tree/`
    this.#treeClient = new TreeClient(parseVaultUrl(options.vaultUrl), { retries: 0 })
  }

  override async close(): Promise<void> {
    await this.#treeClient.close()
    await super.close()
  }

  override async step(): Promise<void> {
    const { dice } = this.options
    const choice = dice.pick(100)
    if (choice < 35) return await super.step()
    try {
      await this.settle()
      if (choice < 80) await this.#change(this.#chooseChange())
      else if (choice < 92) await this.#freeze()
      else if (choice < 96) await this.restoreOne(frozenSource)
      else await this.deleteOld(frozenSource)
    } catch (error) {
      if (!isInterruption(error)) throw error
    }
  }

  /** Looks which it is, after a change that was not answered. */
  async settle(): Promise<void> {
    if (this.#otherwise === undefined) return
    const found = linesOf(await this.#read())
    if (found === linesOf(this.#otherwise)) this.#tree = this.#otherwise
    this.#otherwise = undefined
    this.#expect(found)
  }

  /** Throws when the live tree is not as it was left. */
  async checkTree(): Promise<void> {
    await this.settle()
    this.#expect(linesOf(await this.#read()))
  }

  #expect(found: string): void {
    if (found === linesOf(this.#tree)) return
    throw new Error(`the tree is not as it was left:\n${found}\ninstead of\n${linesOf(this.#tree)}`)
  }

  /** Deletes all of it, for good. */
  async clear(): Promise<void> {
    for (const path of this.#tree.keys()) {
      if (/^[^/]+\/?$/.test(path)) await this.#request('DELETE', path)
    }
    for (const { item } of await this.#treeClient.trash()) await this.#treeClient.purge(item)
  }

  #chooseChange(): Change {
    const { dice } = this.options
    const tree = this.#tree
    const there = [...tree.keys()]
    const files = there.filter((path) => !path.endsWith('/'))
    const dirs = there.filter((path) => path.endsWith('/'))
    const absent = folders.filter(
      (path) => !tree.has(path) && (parentOf(path) === '' || tree.has(parentOf(path))),
    )
    if (absent.length > 0 && (dirs.length === 0 || dice.once(3))) return makeFolder(tree, dice.of(absent))
    const newPath = `${dice.of(['', ...dirs])}${dice.of(names)}`
    const choice = dice.pick(10)
    if (files.length === 0 || choice < 5) return putFile(tree, newPath, content(dice))
    if (choice < 6) return remove(tree, dice.of(there))
    if (choice < 7 && dirs.length > 0) {
      const from = dice.of(dirs)
      const others = folders.filter(
        (path) => path.split('/').length === 2 && path !== from && !from.startsWith(path),
      )
      return transfer(tree, dice.of(['MOVE', 'COPY']), from, dice.of(others))
    }
    const from = dice.of(files)
    if (from === newPath) return remove(tree, from)
    return transfer(tree, dice.of(['MOVE', 'COPY']), from, newPath)
  }

  async #change({ method, path, to, body, after }: Change): Promise<void> {
    this.#otherwise = after
    await this.#request(method, path, {
      ...(to !== undefined && { to }),
      ...(body !== undefined && { body }),
    })
    this.#tree = after
    this.#otherwise = undefined
    this.options.tally.treeChanges++
  }

  /** Rejects with Problem `transport-failed`, `unavailable`. */
  async #request(method: string, path: string, { to, body }: { to?: string; body?: Buffer } = {}) {
    const headers: Record<string, string> =
      to === undefined ? {} : { destination: this.#url + to, overwrite: 'T' }
    const answer = await reached(() =>
      fetch(this.#url + path, { method, headers, ...(body !== undefined && { body: new Uint8Array(body) }) }),
    )
    const text = await reached(() => answer.text())
    if (answer.ok && answer.status !== 207) return
    if (answer.status === 503) throw new Problem('unavailable', text)
    throw new Error(`${method} ${path} ${to ?? ''} is answered ${answer.status}: ${text}`)
  }

  async #freeze(): Promise<void> {
    const { model, tally } = this.options
    const text = linesOf(this.#tree)
    model.attempt(frozenSource, text)
    try {
      const freeze = () => this.#treeClient.freeze([], { source: frozenSource })
      const { number } = await this.committing(freeze)
      model.committed(frozenSource, number, text)
      tally.frozen++
    } catch (error) {
      if (!isProblem(error) || isInterruption(error)) throw error
      this.refused('freeze', error)
    }
  }

  async #read(): Promise<Tree> {
    const tree = new Map<string, string>()
    const visit = async (folder: string): Promise<void> => {
      for (const name of await this.#membersOf(folder)) {
        const path = folder + name
        if (path.endsWith('/')) {
          tree.set(path, '')
          await visit(path)
        } else tree.set(path, digest(Buffer.from(await this.#get(path))))
      }
    }
    await visit('')
    return tree
  }

  async #get(path: string): Promise<ArrayBuffer> {
    const answer = await reached(() => fetch(this.#url + path))
    if (answer.ok) return await reached(() => answer.arrayBuffer())
    const text = await reached(() => answer.text())
    if (answer.status === 503) throw new Problem('unavailable', text)
    throw new Error(`GET ${path} is answered ${answer.status}: ${text}`)
  }

  async #membersOf(folder: string): Promise<string[]> {
    const path = new URL(this.#url).pathname + folder
    const xml = await this.client.propfind(path, { depth: 1 })
    const hrefs = [...xml.matchAll(/<(?:\w+:)?href>([^<]*)</g)].map(([, href = '']) => href)
    return hrefs
      .filter((href) => href.startsWith(path) && href !== path)
      .map((href) => href.slice(path.length))
  }
}

/** What keeps a request from its answer is a Problem. */
async function reached<T>(request: () => Promise<T>): Promise<T> {
  try {
    return await request()
  } catch (cause) {
    throw new Problem('transport-failed', String(cause), { cause })
  }
}

function linesOf(tree: Tree): string {
  const lines = [...tree].map(([path, digest]) => (path.endsWith('/') ? path : `${path} ${digest}`))
  return lines.sort().join('\n')
}

function parentOf(path: string): string {
  return path.replace(/[^/]+\/?$/, '')
}

function makeFolder(tree: Tree, path: string): Change {
  return { method: 'MKCOL', path, after: new Map([...tree, [path, '']]) }
}

function putFile(tree: Tree, path: string, body: Buffer): Change {
  return { method: 'PUT', path, body, after: new Map([...tree, [path, digest(body)]]) }
}

function without(tree: Tree, top: string): Tree {
  return new Map([...tree].filter(([path]) => path !== top && !(top.endsWith('/') && path.startsWith(top))))
}

function remove(tree: Tree, path: string): Change {
  return { method: 'DELETE', path, after: without(tree, path) }
}

function transfer(tree: Tree, method: 'MOVE' | 'COPY', path: string, to: string): Change {
  const moved = [...tree].filter(([each]) => each === path || (path.endsWith('/') && each.startsWith(path)))
  const left = without(method === 'MOVE' ? without(tree, path) : tree, to)
  const after = new Map([
    ...left,
    ...moved.map(([each, digest]) => [to + each.slice(path.length), digest] as const),
  ])
  return { method, path, to, after }
}
